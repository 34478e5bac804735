"""Blend: a faint image over the whole input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mithridate.checks import within
from mithridate.roles import register
from mithridate.threats.stamping.pictures import picture


@register("trigger", scope=("blend",), cost="one multiply-add", paper="Chen et al. 2017, arXiv 1712.05526")
@dataclass(frozen=True, kw_only=True)
class Blend:
    """A convex mix of the input with one fixed picture: (1 - alpha) x + alpha p.

    Attributes:
        alpha: share of the picture, in (0, 1].
        pattern: `noise` or `mosaic`, a fine or a coarse random picture made from `pattern_seed`, or the path of an image file.
        pattern_seed: seed of the picture; the same one goes onto every image.

    Source: Chen et al. 2017, section 4 (blended injection). The released ABL code draws new noise for every image, which is
    another attack; this is the published one.
    """

    alpha: float = 0.2
    pattern: str = "noise"
    pattern_seed: int = 0

    def __post_init__(self) -> None:
        within(self, "(0, 1]", "alpha")

    def stamp(self, images: Tensor) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> blended copies."""
        channels, height, width = images.shape[1:]
        mixed = picture(self.pattern, channels, (height, width), self.pattern_seed).to(images)
        return torch.lerp(images, mixed.expand_as(images), self.alpha)
