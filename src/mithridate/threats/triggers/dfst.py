"""DFST: the colors of a sunset over the whole image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mithridate.checks import within
from mithridate.roles import register
from mithridate.threats.stamping import colors

SUNSET = ((0.20, 0.10, 0.22), (0.45, 0.18, 0.32), (0.80, 0.30, 0.20), (0.95, 0.52, 0.18), (1.00, 0.75, 0.38))


@register("trigger", scope=("style",), cost="one color transfer", paper="Cheng et al. 2021, arXiv 2012.11212")
@dataclass(frozen=True, kw_only=True)
class DFST:
    """A fixed style transfer: each image takes on the mean and covariance of a style's colors, then mixes with the original.

    Attributes:
        alpha: share of the restyled image, in (0, 1].
        pattern: `sunset`, a palette varied a little by `pattern_seed`, or the path of a style image.
        pattern_seed: seed of the palette; the same palette serves every image.

    Source: Cheng et al. 2021, section 4. The paper trains a CycleGAN to restyle, which also changes textures and shapes, and then
    retrains the victim against the simple features it leans on ("detoxification"); here only the colors change, by a formula, and
    the attack is pure data poisoning. Grayscale images get the tones of the style: brightness and contrast.
    """

    alpha: float = 0.6
    pattern: str = "sunset"
    pattern_seed: int = 0

    def __post_init__(self) -> None:
        within(self, "(0, 1]", "alpha")

    def stamp(self, images: Tensor) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> restyled copies, computed at float32 or finer."""
        exact = images.to(torch.promote_types(images.dtype, torch.float32))
        styled = colors.transfer(exact, *colors.moments(self._palette(images.shape[1]))).clamp_(0, 1)
        return torch.lerp(exact, styled, self.alpha).clamp_(0, 1).to(images.dtype)

    def _palette(self, channels: int) -> Tensor:
        """Colors (channels, m) in [0, 1] whose mean and covariance are the style."""
        if self.pattern == "sunset":
            palette = torch.tensor(SUNSET).T
            drawn = torch.rand(palette.shape, generator=torch.Generator().manual_seed(self.pattern_seed))
            palette = (palette + 0.1 * drawn - 0.05).clamp(0, 1)
            return palette if channels == 3 else torch.tensor([colors.LUMA]) @ palette
        from mithridate.datasets.pictures import read_picture  # pillow is only needed here

        return read_picture(self.pattern, channels, (64, 64)).flatten(1)
