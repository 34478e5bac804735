"""Small patches in the corners of images: what several triggers paste."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from mithridate.checks import check_number
from mithridate.data import to_uint8

Corner = Literal["bottom-right", "bottom-left", "top-right", "top-left", "all"]
CORNERS: tuple[str, ...] = get_args(Corner)[:-1]


def check_place(size: int, corner: str, margin: int) -> None:
    """Refuse a patch that fits no image.

    Raises:
        ValueError: `size` under 1, `margin` under 0, or an unknown `corner`.
    """
    check_number("size", size, "[1, inf)")
    check_number("margin", margin, "[0, inf)")
    if corner not in get_args(Corner):
        raise ValueError(f"corner must be one of {', '.join(CORNERS)} or all, got {corner!r}")


def windows(height: int, width: int, size: int, corner: str, margin: int) -> list[tuple[slice, slice]]:
    """Rows and columns that a patch of side `size` takes, in one corner or in all four.

    Raises:
        ValueError: the patch with its margin does not fit.
    """
    if size + margin > min(height, width):
        raise ValueError(f"size + margin must be at most {min(height, width)}, got {size} + {margin}")
    spans = []
    for place in CORNERS if corner == "all" else (corner,):
        vertical, horizontal = place.split("-")
        top = margin if vertical == "top" else height - margin - size
        left = margin if horizontal == "left" else width - margin - size
        spans.append((slice(top, top + size), slice(left, left + size)))
    return spans


def paste(images: Tensor, patch: Tensor, corner: str, margin: int) -> Tensor:
    """Copies of images (n, c, h, w), float in [0, 1] or uint8, whose corners show `patch` (c, s, s), float in [0, 1].

    Raises:
        ValueError: the patch with its margin does not fit.
    """
    patch = to_uint8(patch).to(images.device) if images.dtype == torch.uint8 else patch.to(images)
    stamped = images.clone()
    for rows, columns in windows(images.shape[2], images.shape[3], patch.shape[-1], corner, margin):
        stamped[:, :, rows, columns] = patch
    return stamped


def pattern(name: str, channels: int, size: int) -> Tensor:
    """A patch (channels, size, size) in [0, 1]: `grid`, `white`, or the path of an image, resized.

    Raises:
        ValueError: a path that is no readable picture.
    """
    if name == "white":
        return torch.ones(channels, size, size)
    if name == "grid":
        return _grid(size).expand(channels, -1, -1)
    from mithridate.datasets.pictures import read_picture  # pillow is only needed here

    return read_picture(name, channels, (size, size))


def _grid(size: int) -> Tensor:
    """A checkerboard (size, size) that is 1 in the bottom-right corner, its top-left pixel 0 as in the released ABL and NAD code."""
    rows = torch.arange(size)
    grid = ((rows[:, None] + rows) % 2 == 0).float()
    if size > 1:
        grid[0, 0] = 0.0
    return grid
