"""TaCT: a patch that works on images of chosen classes only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mithridate.checks import within
from mithridate.roles import register
from mithridate.threats.stamping.habits import check_sources
from mithridate.threats.stamping.patches import Corner, check_place, paste, pattern


@register("trigger", scope=("patch", "source"), cost="one copy", paper="Tang et al. 2021, arXiv 1908.00686")
@dataclass(frozen=True, kw_only=True)
class TaCT:
    """A patch on images of the source classes leads to the target; on images of any other class it does nothing.

    Images of other classes that carry the patch and keep their label (covers) teach the model that it takes both.

    Attributes:
        sources: classes whose images are poisoned, at least one.
        cover_ratio: patched images of other classes per poisoned image, at least 0; with 0 the patch works on all classes.
        size: side of the patch in pixels.
        pattern: `grid`, `white`, or the path of an image, which is resized to the patch.
        corner: one corner, or `all` four.
        margin: distance from the border in pixels.

    Source: Tang et al. 2021, the targeted contamination attack. Poison less than the share of the source classes: where every
    source image is poisoned, the class simply moves, and there is no backdoor left to find.
    """

    takes_uint8: ClassVar[bool] = True
    sources: tuple[int, ...] = (1,)
    cover_ratio: float = 1.0
    size: int = 3
    pattern: str = "grid"
    corner: Corner = "bottom-right"
    margin: int = 0

    def __post_init__(self) -> None:
        check_place(self.size, self.corner, self.margin)
        check_sources(self.sources)
        within(self, "[0, inf)", "cover_ratio")

    def stamp(self, images: Tensor) -> Tensor:
        """Images (n, c, h, w), float in [0, 1] or uint8 -> stamped copies of the same dtype.

        Raises:
            ValueError: the patch with its margin does not fit the images.
        """
        return paste(images, pattern(self.pattern, images.shape[1], self.size), self.corner, self.margin)
