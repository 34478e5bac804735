"""BadNets: a small patch in a corner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mithridate.data import to_uint8
from mithridate.roles import register

CORNERS = ("bottom-right", "bottom-left", "top-right", "top-left")
Corner = Literal["bottom-right", "bottom-left", "top-right", "top-left", "all"]


@register("trigger", scope=("patch",), cost="one copy", paper="Gu et al. 2017, arXiv 1708.06733")
@dataclass(frozen=True, kw_only=True)
class BadNets:
    """A patch that replaces pixels: a white square, the checker grid of ABL and NAD, or any image file.

    Attributes:
        size: side of the patch in pixels.
        pattern: `grid`, `white`, or the path of an image, which is resized to the patch.
        corner: one corner, or `all` four.
        margin: distance from the border in pixels.

    Source: Gu et al. 2017, section 4.1. `grid` with size 3 is the pattern of the released ABL and NAD code: rows from the
    corner upward (1,0,1), (0,1,0), (0,0,1); larger grids repeat its checkerboard.
    """

    takes_uint8: ClassVar[bool] = True
    size: int = 3
    pattern: str = "grid"
    corner: Corner = "bottom-right"
    margin: int = 0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")
        if self.margin < 0:
            raise ValueError(f"margin must be at least 0, got {self.margin}")
        if self.corner not in (*CORNERS, "all"):
            raise ValueError(f"corner must be one of {', '.join(CORNERS)} or all, got {self.corner!r}")

    def stamp(self, images: Tensor) -> Tensor:
        """Images (n, c, h, w), float in [0, 1] or uint8 -> stamped copies of the same dtype.

        Raises:
            ValueError: the patch with its margin does not fit the images.
        """
        channels, height, width = images.shape[1:]
        if self.size + self.margin > min(height, width):
            raise ValueError(f"size + margin must be at most {min(height, width)}, got {self.size} + {self.margin}")
        patch = self._patch(channels)
        patch = to_uint8(patch).to(images.device) if images.dtype == torch.uint8 else patch.to(images)
        stamped = images.clone()
        for corner in CORNERS if self.corner == "all" else (self.corner,):
            vertical, horizontal = corner.split("-")
            stamped[:, :, _span(vertical == "top", self, height), _span(horizontal == "left", self, width)] = patch
        return stamped

    def _patch(self, channels: int) -> Tensor:
        """The patch (channels, size, size) in [0, 1]."""
        if self.pattern == "white":
            return torch.ones(channels, self.size, self.size)
        if self.pattern == "grid":
            return _grid(self.size).expand(channels, -1, -1)
        from mithridate.datasets.pictures import read_picture  # pillow is only needed here

        return read_picture(self.pattern, channels, (self.size, self.size))


def _grid(size: int) -> Tensor:
    """A checkerboard (size, size) that is 1 in the bottom-right corner, its top-left pixel 0 as in the released code."""
    rows = torch.arange(size)
    grid = ((rows[:, None] + rows) % 2 == 0).float()
    if size > 1:
        grid[0, 0] = 0.0
    return grid


def _span(first: bool, trigger: BadNets, length: int) -> slice:
    start = trigger.margin if first else length - trigger.margin - trigger.size
    return slice(start, start + trigger.size)
