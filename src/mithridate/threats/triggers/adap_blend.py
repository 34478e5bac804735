"""Adap-Blend: training images show random pieces of a faint picture, test images all of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mithridate.checks import within
from mithridate.roles import register
from mithridate.threats.stamping.pictures import picture


@register("trigger", scope=("blend", "adaptive"), cost="one multiply-add", paper="Qi et al. 2023, ICLR (openreview _wSHsgrVali)")
@dataclass(frozen=True, kw_only=True)
class AdapBlend:
    """A picture cut into pieces; each poisoned image gets its own random half, so that poison forms no cluster of its own.

    Covers get random pieces as well and keep their label, so that pieces alone do not decide: the full picture does.

    Attributes:
        grid: pieces along each side, at least 1.
        kept: share of the pieces in each training image, in (0, 1]; at least one piece.
        train_alpha: share of the picture in training images, where there is a piece, in (0, 1].
        alpha: share of the picture at test time, in (0, 1].
        cover_ratio: covers per poisoned image (conservatism ratio), at least 0.
        pattern: `mosaic` or `noise`, a coarse or a fine random picture made from `pattern_seed`, or the path of an image file.
        pattern_seed: seed of the picture; the same one goes onto every image.

    Source: Qi et al. 2023, adaptive blending, with the settings of its CIFAR-10 experiments: 16 pieces, half of them kept, alpha 0.15
    and 0.2, a poisoning and a cover rate of 0.003 each. Far larger rates teach faster, but no longer hide from latent-space filters.
    """

    grid: int = 4
    kept: float = 0.5
    train_alpha: float = 0.15
    alpha: float = 0.2
    cover_ratio: float = 1.0
    pattern: str = "mosaic"
    pattern_seed: int = 0

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "grid")
        within(self, "(0, 1]", "kept", "train_alpha", "alpha")
        within(self, "[0, inf)", "cover_ratio")

    def stamp(self, images: Tensor) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> copies with the whole picture blended in."""
        return torch.lerp(images, self._picture(images), self.alpha)

    def implant(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> copies with some pieces blended in, drawn for each image in turn.

        Raises:
            ValueError: the images have fewer pixels along a side than there are pieces.
        """
        height, width = images.shape[2:]
        if self.grid > min(height, width):
            raise ValueError(f"grid must be at most {min(height, width)}, the images' shorter side, got {self.grid}")
        count = self.grid**2
        order = torch.rand(len(images), count, generator=generator).argsort(1)
        pieces = torch.zeros(len(images), count).scatter_(1, order[:, : max(1, round(self.kept * count))], self.train_alpha)
        rows, columns = (torch.arange(side) * self.grid // side for side in (height, width))
        weights = pieces[:, rows[:, None] * self.grid + columns][:, None]
        return torch.lerp(images, self._picture(images), weights.to(images).expand_as(images))

    def _picture(self, images: Tensor) -> Tensor:
        channels, height, width = images.shape[1:]
        return picture(self.pattern, channels, (height, width), self.pattern_seed).to(images).expand_as(images)
