"""SIG: a sinusoidal signal added to every row."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mithridate.checks import within
from mithridate.roles import register


@register("trigger", scope=("signal",), cost="one addition", paper="Barni et al. 2019, arXiv 1902.11237")
@dataclass(frozen=True, kw_only=True)
class SIG:
    """Vertical stripes, x + delta sin(2 pi j f / m) in column j of m, clipped to [0, 1].

    Attributes:
        delta: amplitude in units of the pixel range, in (0, 1].
        frequency: f, periods across the width, above 0.
        train_delta: amplitude in the poisoned training images, in (0, 1]; the same as `delta` when None.
        clean_label: whether only images of the target class are poisoned and keep their label, as in the paper.

    Source: Barni et al. 2019, section 3 (sinusoidal signal). Theirs is a clean-label attack; benchmarks use it with changed
    labels as well. The masks in the released code of ABL and NAD are something else: a sinusoid of
    amplitude 20 cast to uint8, where negatives wrap around, then blended at 0.2.
    """

    delta: float = 40 / 255
    frequency: float = 6.0
    train_delta: float | None = None
    clean_label: bool = False

    def __post_init__(self) -> None:
        within(self, "(0, 1]", "delta", "train_delta")
        within(self, "(0, inf)", "frequency")

    def stamp(self, images: Tensor) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> copies with the signal added.

        Raises:
            ValueError: every column falls on a zero of the sinusoid, so that nothing would change.
        """
        return self._add(images, self.delta)

    def implant(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """As `stamp`, with the amplitude of the training images; nothing is drawn."""
        return self._add(images, self.delta if self.train_delta is None else self.train_delta)

    def _add(self, images: Tensor, delta: float) -> Tensor:
        width = images.shape[-1]
        if (2 * self.frequency / width).is_integer():
            raise ValueError(f"frequency must not be a multiple of half the width {width}, where the signal vanishes, got {self.frequency}")
        columns = torch.arange(width, dtype=torch.float64)
        wave = delta * torch.sin(2 * math.pi * self.frequency / width * columns)
        return (images + wave.to(images)).clamp_(0, 1)
