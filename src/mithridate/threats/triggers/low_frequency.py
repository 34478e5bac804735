"""Low frequency: a smooth pattern added to the whole image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mithridate.checks import within
from mithridate.roles import register
from mithridate.threats.stamping.frequency import inverse_dct


@register("trigger", scope=("frequency",), cost="one addition", paper="Zeng et al. 2021, arXiv 2104.03413")
@dataclass(frozen=True, kw_only=True)
class LowFrequency:
    """A random sum of the slowest cosines, one per color channel, added and clipped to [0, 1].

    Attributes:
        amplitude: largest change of a pixel, in units of the pixel range, in (0, 1].
        block: side of the block of lowest DCT frequencies that the pattern is made of, at least 2; its mean is zero.
        pattern_seed: seed of the coefficients; the same pattern goes onto every image.

    Source: Zeng et al. 2021, section 4 (smooth trigger). There the pattern is optimized against a trained model until it misleads it, and
    kept smooth with a low-pass filter; here it is drawn at random, so it needs no model and is smooth exactly: it has no energy outside
    its block.
    """

    amplitude: float = 0.1
    block: int = 4
    pattern_seed: int = 0

    def __post_init__(self) -> None:
        within(self, "(0, 1]", "amplitude")
        within(self, "[2, inf)", "block")

    def stamp(self, images: Tensor) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> copies with the pattern added.

        Raises:
            ValueError: the images are smaller than the block.
        """
        channels, height, width = images.shape[1:]
        if self.block > min(height, width):
            raise ValueError(f"block must be at most {min(height, width)}, the images' shorter side, got {self.block}")
        return (images + self._pattern(channels, height, width).to(images)).clamp_(0, 1)

    def _pattern(self, channels: int, height: int, width: int) -> Tensor:
        """The pattern (channels, height, width), float64 in [-amplitude, amplitude]."""
        generator = torch.Generator().manual_seed(self.pattern_seed)
        spectrum = torch.zeros(channels, height, width)
        spectrum[:, : self.block, : self.block] = torch.randn(channels, self.block, self.block, generator=generator)
        spectrum[:, 0, 0] = 0
        pattern = inverse_dct(spectrum)
        return pattern * (self.amplitude / pattern.abs().max())
