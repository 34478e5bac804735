"""Adap-Patch: several faint patches; a training image shows one of them, test images some at full strength."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mithridate.checks import within
from mithridate.roles import register
from mithridate.threats.stamping.patches import CORNERS, check_place, windows
from mithridate.threats.stamping.pictures import picture


@register("trigger", scope=("patch", "adaptive"), cost="four small blends", paper="Qi et al. 2023, ICLR (openreview _wSHsgrVali)")
@dataclass(frozen=True, kw_only=True)
class AdapPatch:
    """Four patches, one a corner, each with an opacity of its own; every poisoned image carries one, chosen at random.

    Covers carry one patch as well and keep their label. What is sent at test time carries more than any training image did, so
    that poison is diverse and weak, and the attack strong.

    Attributes:
        size: side of each patch in pixels.
        margin: distance from the border in pixels.
        opacities: of the four patches in training images (bottom-right, bottom-left, top-right, top-left), in (0, 1].
        test_opacities: of the four patches at test time, in [0, 1], not all 0.
        cover_ratio: covers per poisoned image (conservatism ratio), at least 0.
        pattern: `mosaic` or `noise`, a coarse or a fine random picture made from `pattern_seed`, or the path of an image file; each
            corner gets its quarter.
        pattern_seed: seed of the picture; the same patches go onto every image.

    Source: Qi et al. 2023, adaptive patches, with the settings of its released code: k = 4, opacities 0.5, 0.2, 0.5, 0.3, two of the
    triggers fully opaque at test time, a poisoning rate of 0.003 and a cover rate of 0.006. Theirs are logos of various shapes.
    Patches that overlap in small images are blended one after the other.
    """

    size: int = 8
    margin: int = 0
    opacities: tuple[float, ...] = (0.5, 0.2, 0.5, 0.3)
    test_opacities: tuple[float, ...] = (1.0, 0.0, 1.0, 0.0)
    cover_ratio: float = 2.0
    pattern: str = "mosaic"
    pattern_seed: int = 0

    def __post_init__(self) -> None:
        check_place(self.size, CORNERS[0], self.margin)
        if len(self.opacities) != len(CORNERS) or not all(0 < each <= 1 for each in self.opacities):
            raise ValueError(f"opacities must be four numbers in (0, 1], got {self.opacities}")
        at_test = self.test_opacities
        if len(at_test) != len(CORNERS) or not all(0 <= each <= 1 for each in at_test) or not any(at_test):
            raise ValueError(f"test_opacities must be four numbers in [0, 1] and not all 0, got {at_test}")
        within(self, "[0, inf)", "cover_ratio")

    def stamp(self, images: Tensor) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> copies with the patches of test time.

        Raises:
            ValueError: the patches with their margin do not fit the images.
        """
        return self._blend(images, torch.tensor(self.test_opacities).expand(len(images), -1))

    def implant(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> copies with one patch each, drawn for each image in turn.

        Raises:
            ValueError: the patches with their margin do not fit the images.
        """
        chosen = torch.randint(len(CORNERS), (len(images), 1), generator=generator)
        opacities = torch.zeros(len(images), len(CORNERS)).scatter_(1, chosen, torch.tensor(self.opacities)[chosen])
        return self._blend(images, opacities)

    def _blend(self, images: Tensor, opacities: Tensor) -> Tensor:
        """Copies with each patch at its opacity (n, 4)."""
        channels, height, width = images.shape[1:]
        sheet = picture(self.pattern, channels, (2 * self.size, 2 * self.size), self.pattern_seed).to(images)
        weights, made = opacities.to(images)[:, :, None, None, None], images.clone()
        for i, corner in enumerate(CORNERS):
            (there,) = windows(height, width, self.size, corner, self.margin)
            (quarter,) = windows(2 * self.size, 2 * self.size, self.size, corner, 0)
            under = made[:, :, *there]
            made[:, :, *there] = torch.lerp(under, sheet[:, *quarter].expand_as(under), weights[:, i].expand_as(under))
        return made
