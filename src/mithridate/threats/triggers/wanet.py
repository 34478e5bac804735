"""WaNet: a slight, smooth warp of the whole image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mithridate.checks import within
from mithridate.roles import register
from mithridate.threats.stamping import warp


@register("trigger", scope=("warp",), cost="one bilinear sampling", paper="Nguyen and Tran 2021, arXiv 2102.10369")
@dataclass(frozen=True, kw_only=True)
class WaNet:
    """One smooth warp, the same for every image, as pure data poisoning.

    Attributes:
        grid_size: control points of the warp along each side (k of the paper), at least 1.
        strength: mean size of the control points' offsets (s of the paper), in half pixels, above 0.
        grid_rescale: multiplies all sampling positions, in (0, 1]; below 1 it zooms in.
        cover_ratio: cover samples per poisoned sample, at least 0: other images, warped with added noise, that keep their label (the
            noise mode), so that only the exact warp opens the backdoor.
        pattern_seed: seed of the warp.

    Source: Nguyen and Tran 2021, section 3. There the attacker also trains the model, with grid_size 4, strength 0.5, grid_rescale 1
    and twice as many noisy images as poisoned ones; planter `wanet_noise` does that. A poisoner who trains nothing needs a
    warp that is learned by itself, hence the default strength of 1.
    """

    grid_size: int = 4
    strength: float = 1.0
    grid_rescale: float = 1.0
    cover_ratio: float = 2.0
    pattern_seed: int = 0

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "grid_size")
        within(self, "(0, inf)", "strength")
        within(self, "(0, 1]", "grid_rescale")
        within(self, "[0, inf)", "cover_ratio")

    def stamp(self, images: Tensor) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> warped copies."""
        return warp.warp(images, self._grid(images))

    def cover(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> copies, each warped with noise of its own; labels (n,) do not matter."""
        return warp.warp(images, warp.jitter(self._grid(images), len(images), generator))

    def _grid(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        generator = torch.Generator().manual_seed(self.pattern_seed)
        return warp.field(self.grid_size, self.strength, height, width, generator, self.grid_rescale)
