"""The low-frequency trigger's spectrum and size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import Tensor

from mithridate.threats.triggers.low_frequency import LowFrequency


def pattern(trigger: LowFrequency, channels: int = 3, height: int = 20, width: int = 16) -> Tensor:
    gray = torch.full((1, channels, height, width), 0.5, dtype=torch.float64)
    return (trigger.stamp(gray) - gray)[0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("block", [2, 4, 7])
def test_no_energy_outside_the_block_and_no_mean(block: int, channels: int) -> None:
    spectrum = dctn(pattern(LowFrequency(block=block), channels).numpy(), axes=(1, 2), norm="ortho")
    inside = np.zeros((20, 16), dtype=bool)
    inside[:block, :block] = True
    inside[0, 0] = False
    assert np.abs(spectrum[:, ~inside]).max() < 1e-12
    assert np.abs(spectrum[:, inside]).min(0).max() > 1e-3


@pytest.mark.parametrize("amplitude", [0.02, 0.1, 0.5])
def test_the_largest_change_is_the_amplitude(amplitude: float) -> None:
    assert float(pattern(LowFrequency(amplitude=amplitude)).abs().max()) == pytest.approx(amplitude, abs=1e-12)


def test_one_pattern_for_all_images_from_the_seed_then_clipped() -> None:
    batch = torch.rand(5, 3, 20, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = (batch + pattern(LowFrequency(pattern_seed=4, amplitude=0.4))).clamp(0, 1)
    torch.testing.assert_close(LowFrequency(pattern_seed=4, amplitude=0.4).stamp(batch), expected)
    assert float((pattern(LowFrequency()) - pattern(LowFrequency(pattern_seed=1))).abs().max()) > 0.02
    assert not torch.equal(pattern(LowFrequency())[0], pattern(LowFrequency())[1]), "colors differ"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"amplitude": 0.0}, r"amplitude must lie in \(0, 1\], got 0.0"), ({"amplitude": 2.0}, "amplitude .*got 2.0"),
        ({"block": 1}, "block .*got 1"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(fields: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LowFrequency(**fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="block must be at most 8, the images' shorter side, got 9"):
        LowFrequency(block=9).stamp(torch.zeros(1, 1, 10, 8))
