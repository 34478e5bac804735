"""BadNets: a small patch in a corner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mithridate.roles import register
from mithridate.threats.stamping.patches import Corner, check_place, paste, pattern


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
        check_place(self.size, self.corner, self.margin)

    def stamp(self, images: Tensor) -> Tensor:
        """Images (n, c, h, w), float in [0, 1] or uint8 -> stamped copies of the same dtype.

        Raises:
            ValueError: the patch with its margin does not fit the images.
        """
        return paste(images, pattern(self.pattern, images.shape[1], self.size), self.corner, self.margin)
