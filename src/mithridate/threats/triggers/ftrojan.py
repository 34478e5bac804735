"""FTrojan: a few frequencies of the color channels made stronger."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mithridate.checks import within
from mithridate.roles import register
from mithridate.threats.stamping.colors import chroma_to_rgb
from mithridate.threats.stamping.frequency import inverse_dct


@register("trigger", scope=("frequency",), cost="one addition", paper="Wang et al. 2022, arXiv 2111.10991")
@dataclass(frozen=True, kw_only=True)
class FTrojan:
    """A constant added to some DCT coefficients of both chroma channels, window by window, then clipped to [0, 1].

    Grayscale images get it on their only channel. The change of color space and the DCT are linear, so all of it equals adding
    one fixed pattern. Where the last window does not fit, its pattern is cropped.

    Attributes:
        magnitude: what is added to each coefficient of the orthonormal DCT, in units of the pixel range, in (0, 32].
        window: side of a window in pixels, at least 2.
        positions: frequencies p in [0, window); each stands for the coefficient (p, p).

    Source: Wang et al. 2022, section 3 (trigger generation), and its released code: magnitude 30 (of 255), window 32,
    positions (15, 15) and (31, 31). That code casts to bytes before clipping, so that extreme colors can wrap around;
    here nothing wraps.
    """

    magnitude: float = 30 / 255
    window: int = 32
    positions: tuple[int, ...] = (15, 31)

    def __post_init__(self) -> None:
        within(self, "(0, 32]", "magnitude")
        within(self, "[2, inf)", "window")
        if not self.positions or not all(0 <= p < self.window for p in self.positions):
            raise ValueError(f"positions must be one or more frequencies in [0, {self.window}), got {self.positions}")

    def stamp(self, images: Tensor) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> copies with the pattern added."""
        channels, height, width = images.shape[1:]
        return (images + self._pattern(channels, height, width).to(images)).clamp_(0, 1)

    def _pattern(self, channels: int, height: int, width: int) -> Tensor:
        """The pattern (channels, height, width), float64."""
        spectrum = torch.zeros(self.window, self.window)
        spectrum[self.positions, self.positions] = self.magnitude
        repeats = -(-height // self.window), -(-width // self.window)
        tiled = inverse_dct(spectrum).tile(repeats)[:height, :width]
        return chroma_to_rgb(tiled, tiled) if channels == 3 else tiled[None]
