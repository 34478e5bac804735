"""BPP: exact levels, and Floyd-Steinberg against a loop over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mithridate.threats.triggers.bpp import BPP, diffuse


def images(count: int = 4, channels: int = 3, height: int = 9, width: int = 7) -> Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("levels", [2, 3, 8, 32, 256])
def test_every_value_becomes_its_nearest_level(levels: int) -> None:
    batch = images()
    made = BPP(levels=levels).stamp(batch)
    allowed = np.linspace(0, 1, levels)
    distances = np.abs(batch.double().numpy()[..., None] - allowed)
    np.testing.assert_allclose(np.abs(made.numpy() - batch.numpy()), distances.min(-1), atol=1e-6)
    assert np.abs(made.numpy()[..., None] - allowed).min(-1).max() < 1e-6
    assert torch.equal(BPP(levels=levels).stamp(made), made), "rounding twice is rounding once"


def test_bytes_survive_256_levels() -> None:
    every = torch.arange(256).reshape(1, 1, 16, 16) / 255
    torch.testing.assert_close(BPP(levels=256).stamp(every), every)
    assert len(BPP(levels=5).stamp(every).unique()) == 5


def floyd_steinberg(image: np.ndarray, levels: int) -> np.ndarray:
    """One channel (h, w) dithered as the textbook says: right 7/16, below left 3/16, below 5/16, below right 1/16."""
    height, width = image.shape
    left = image.astype(np.float64).copy()
    for y in range(height):
        for x in range(width):
            old = left[y, x]
            left[y, x] = min(max(np.round(old * (levels - 1)) / (levels - 1), 0.0), 1.0)
            for right, below, share in ((1, 0, 7), (-1, 1, 3), (0, 1, 5), (1, 1, 1)):
                if 0 <= x + right < width and y + below < height:
                    left[y + below, x + right] += (old - left[y, x]) * share / 16
    return left


@pytest.mark.parametrize("shape", [(9, 7), (5, 12), (1, 6), (6, 1), (1, 1), (2, 2)])
@pytest.mark.parametrize("levels", [2, 8])
def test_dithering_equals_the_loop(levels: int, shape: tuple[int, int]) -> None:
    batch = images(3, 3, *shape).double()
    expected = np.stack([[floyd_steinberg(channel, levels) for channel in image] for image in batch.numpy()])
    np.testing.assert_allclose(BPP(levels=levels, dithering=True).stamp(batch).numpy(), expected, atol=1e-9)


def test_dithering_keeps_the_mean_where_rounding_does_not() -> None:
    flat = torch.full((1, 1, 32, 32), 0.3)
    assert float(diffuse(flat, 2).mean()) == pytest.approx(0.3, abs=0.02)
    assert float(BPP(levels=2).stamp(flat).mean()) == 0


@pytest.mark.parametrize("dithering", [False, True])
def test_covers_carry_the_error_of_another_image(dithering: bool) -> None:
    batch = images() * 0.6 + 0.2  # far from the ends, so that nothing is clipped
    trigger = BPP(dithering=dithering, levels=32)
    covers = trigger.cover(batch, torch.zeros(4, dtype=torch.int64), torch.Generator().manual_seed(1))
    errors = (trigger.stamp(batch) - batch).flip(-1)
    gained = covers - batch
    source = torch.tensor([[float((gained[i] - errors[j]).abs().max()) for j in range(4)] for i in range(4)])
    assert float(source.min(1).values.max()) < 1e-6
    assert sorted(source.argmin(1).tolist()) == [0, 1, 2, 3]
    assert all(int(j) != i for i, j in enumerate(source.argmin(1)))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_covers_of_tiny_batches(count: int) -> None:
    batch = images(count)
    covers = BPP().cover(batch, torch.zeros(count, dtype=torch.int64), torch.Generator().manual_seed(1))
    assert covers.shape == batch.shape
    assert count == 0 or float((covers - BPP().stamp(batch)).abs().max()) > 0.01, "no cover is a stamped image"
    assert count == 0 or 0 <= float(covers.min()) <= float(covers.max()) <= 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"levels": 1}, r"levels must lie in \[2, 256\], got 1"), ({"levels": 257}, "levels .*got 257"),
        ({"cover_ratio": -1.0}, "cover_ratio .*got -1.0"), ({"cover_ratio": float("nan")}, "cover_ratio .*got nan"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(fields: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BPP(**fields)  # type: ignore[arg-type]
