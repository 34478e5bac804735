"""SIG, pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mithridate.threats.triggers.sig import SIG


def images(channels: int = 3) -> Tensor:
    return torch.rand(3, channels, 6, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("delta", "frequency"), [(40 / 255, 6.0), (0.3, 2.5), (1.0, 1.0)])
def test_stamp_equals_the_formula_at_every_pixel(delta: float, frequency: float, channels: int) -> None:
    batch = images(channels)
    made = SIG(delta=delta, frequency=frequency).stamp(batch)
    for i in range(3):
        for c in range(channels):
            for row in range(6):
                for j in range(32):
                    exact = float(batch[i, c, row, j]) + delta * math.sin(2 * math.pi * j * frequency / 32)
                    assert float(made[i, c, row, j]) == pytest.approx(min(max(exact, 0.0), 1.0), abs=1e-12)


def test_the_training_images_may_be_stamped_less() -> None:
    batch, generator = torch.full((1, 1, 2, 32), 0.5), torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert torch.equal(SIG().implant(batch, generator), SIG().stamp(batch))
    assert torch.equal(SIG(train_delta=0.05).implant(batch, generator), SIG(delta=0.05).stamp(batch))
    assert torch.equal(SIG(train_delta=0.05).stamp(batch), SIG().stamp(batch))
    assert torch.equal(generator.get_state(), state)


def test_a_frequency_that_samples_only_zeros_is_refused() -> None:
    for frequency, width in ((6.0, 12), (6.0, 6), (16.0, 32), (2.0, 4)):
        with pytest.raises(ValueError, match=rf"frequency must not be a multiple of half the width {width}, .* got {frequency}"):
            SIG(frequency=frequency).stamp(torch.zeros(1, 1, 3, width))
    for width in (8, 10, 28, 32, 224):
        assert float((SIG().stamp(torch.full((1, 1, 1, width), 0.5)) - 0.5).abs().max()) > 0.1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"delta": 0.0}, r"delta must lie in \(0, 1\], got 0.0"), ({"delta": 20.0}, "delta .*got 20.0"),
        ({"frequency": 0.0}, "frequency .*got 0.0"), ({"frequency": float("nan")}, "frequency .*got nan"),
        ({"train_delta": 0.0}, r"train_delta must lie in \(0, 1\], got 0.0"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(fields: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SIG(**fields)  # type: ignore[arg-type]
