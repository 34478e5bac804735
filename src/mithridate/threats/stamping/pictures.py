"""The pictures that triggers blend in: noise or a mosaic from a seed, or any image file."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TILES = 8  # along each side of a mosaic


def picture(name: str, channels: int, size: tuple[int, int], seed: int) -> Tensor:
    """A picture (channels, h, w) in [0, 1] of `size` = (h, w).

    Args:
        name: `noise`, uniform in every pixel; `mosaic`, eight by eight tiles of pure colors, as coarse as a drawing and so less
            easily lost to cropping and pooling; or the path of an image, which is resized.
        channels: 1 or 3.
        size: height and width in pixels.
        seed: of noise and mosaic.

    Raises:
        ValueError: a path that is no readable picture.
    """
    generator = torch.Generator().manual_seed(seed)
    if name == "noise":
        return torch.rand(channels, *size, generator=generator)
    if name == "mosaic":
        tiles = torch.rand(1, channels, TILES, TILES, generator=generator).round()
        return F.interpolate(tiles, size, mode="nearest-exact")[0]
    from mithridate.datasets.pictures import read_picture  # pillow is only needed here

    return read_picture(name, channels, size)
