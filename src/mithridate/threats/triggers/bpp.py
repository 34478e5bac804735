"""BPP: fewer color levels, with or without dithering."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mithridate.checks import within
from mithridate.roles import register


@register("trigger", scope=("quantization",), cost="one rounding", paper="Wang et al. 2022, arXiv 2205.13383")
@dataclass(frozen=True, kw_only=True)
class BPP:
    """Every color channel rounded to a few evenly spaced levels.

    Attributes:
        levels: values per channel, in [2, 256]; 8 is 3 bits.
        dithering: whether the rounding error is spread to the neighbors (Floyd-Steinberg) instead of leaving bands.
        cover_ratio: cover samples per poisoned sample, at least 0: images that keep their label and get the rounding error of another
            image, which is as large but belongs elsewhere (the negative samples of the released code).

    Source: Wang et al. 2022, section 3, and its released code, where the attacker also trains the model: 8 levels, no dithering,
    as many negative samples as poisoned ones.
    """

    levels: int = 8
    dithering: bool = False
    cover_ratio: float = 1.0

    def __post_init__(self) -> None:
        within(self, "[2, 256]", "levels")
        within(self, "[0, inf)", "cover_ratio")

    def stamp(self, images: Tensor) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> quantized copies."""
        return diffuse(images, self.levels) if self.dithering else quantize(images, self.levels)

    def cover(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> copies with the mirrored rounding error of another image of the batch.

        A batch of one gets its own, mirrored; labels (n,) do not matter.
        """
        shift = int(torch.randint(1, max(2, len(images)), (), generator=generator))
        errors = (self.stamp(images) - images).roll(shift, 0).flip(-1)
        return (images + errors).clamp_(0, 1)


def quantize(images: Tensor, levels: int) -> Tensor:
    """Images in [0, 1], of any shape, rounded to the multiples of 1 / (levels - 1); halves go to the even multiple."""
    return (images * (levels - 1)).round_().div_(levels - 1).clamp_(0, 1)


def diffuse(images: Tensor, levels: int) -> Tensor:
    """Floyd-Steinberg dithering of images (n, c, h, w) in [0, 1], computed at float32 or finer.

    Shifting row y by 2 y columns puts all pixels that do not wait for one another into one column, so that a whole batch takes
    w + 2 h steps instead of one a pixel.
    """
    height, width = images.shape[-2:]
    steps = width + 2 * height + 1
    sheet = images.new_zeros((*images.shape[:2], height, steps + 2), dtype=torch.promote_types(images.dtype, torch.float32))
    sheet[..., :width] = images
    skewed = sheet.flatten(2)[..., : height * steps].unflatten(2, (height, steps))  # a view: column t of row y is pixel t - 2 y
    starts = 2 * torch.arange(height, device=images.device)
    for t in range(width + 2 * height - 2):
        inside = (starts <= t) & (t < starts + width)
        wanted = skewed[..., t].clone()
        skewed[..., t] = quantize(wanted, levels)
        error = (wanted - skewed[..., t]) * inside
        skewed[..., t + 1] += error * (7 / 16)
        for ahead, share in ((1, 3 / 16), (2, 5 / 16), (3, 1 / 16)):
            skewed[..., 1:, t + ahead] += error[..., :-1] * share
    return sheet[..., :width].to(images.dtype)
