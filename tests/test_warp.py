"""Warping grids and sampling, against a sampler written by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mithridate.threats.stamping.warp import field, jitter, warp


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 4, channels: int = 3, height: int = 9, width: int = 7) -> Tensor:
    return torch.rand(count, channels, height, width, generator=seeded(5))


def bilinear(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """The color (c,) of an image (c, h, w) at pixel coordinates, whole numbers being pixel centers; outside, the border goes on."""
    height, width = image.shape[1:]
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    across, down = x - left, y - top
    upper = (1 - across) * image[:, top, left] + across * image[:, top, left + 1]
    lower = (1 - across) * image[:, top + 1, left] + across * image[:, top + 1, left + 1]
    return np.asarray((1 - down) * upper + down * lower)


def by_hand(batch: Tensor, grids: Tensor) -> Tensor:
    made = batch.clone()
    count, _, height, width = batch.shape
    for i in range(count):
        grid = grids[i % len(grids)].numpy()
        for row in range(height):
            for column in range(width):
                x, y = (grid[row, column] + 1) / 2 * (width - 1, height - 1)
                made[i, :, row, column] = torch.from_numpy(bilinear(batch[i].numpy(), x, y))
    return made


@pytest.mark.parametrize("shape", [(9, 7), (32, 32), (1, 5)])
def test_no_strength_is_the_identity(shape: tuple[int, int]) -> None:
    batch = images(3, 3, *shape)
    torch.testing.assert_close(warp(batch, field(4, 0.0, *shape, seeded())), batch, atol=1e-5, rtol=0)


@pytest.mark.parametrize("own", [False, True], ids=["one grid for all", "a grid each"])
def test_warp_equals_the_sampler_written_by_hand(own: bool) -> None:
    batch, grid = images().double(), field(3, 2.0, 9, 7, seeded()).double()
    if own:
        grid = jitter(grid, 4, seeded(1), 1.5)
    torch.testing.assert_close(warp(batch, grid), by_hand(batch, grid), atol=1e-9, rtol=0)
    assert float((warp(batch, grid) - batch).abs().mean()) > 0.02


def test_a_shift_by_a_whole_pixel() -> None:
    batch = images(2, 1, 6, 6)
    grid = (field(4, 0.0, 6, 6, seeded()) + torch.tensor([2 / 5, 0.0])).clamp(-1, 1)  # one pixel to the right
    torch.testing.assert_close(warp(batch, grid)[..., :5], batch[..., 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(warp(batch, grid)[..., 5], batch[..., 5], atol=1e-5, rtol=0)


def test_offsets_have_the_published_size_along_both_axes() -> None:
    height, width = 40, 20
    moved = field(4, 0.5, height, width, seeded()) - field(4, 0.0, height, width, seeded())
    pixels = moved * torch.tensor([(width - 1) / 2, (height - 1) / 2])
    assert 0.15 < float(pixels.abs().mean()) < 0.3, "strength 0.5 is a quarter of a pixel on average, less where the border stops it"
    assert float(pixels[..., 0].abs().mean()) == pytest.approx(float(pixels[..., 1].abs().mean()), rel=0.6)
    drawn = torch.rand(1, 2, 4, 4, generator=seeded()) * 2 - 1
    offsets = drawn / drawn.abs().mean() * 0.5 / torch.tensor([width, height])[:, None, None]
    torch.testing.assert_close(moved[0, 13, 0, 1], offsets[0, 1, 1, 0], msg="row 13 of 40 is the second of four control points")


@pytest.mark.parametrize("rescale", [1.0, 0.9])
def test_grids_stay_inside_and_zoom(rescale: float) -> None:
    grid = field(4, 5.0, 16, 12, seeded(), rescale)
    assert float(grid.abs().max()) <= 1
    assert torch.allclose(field(4, 0.0, 16, 12, seeded(), rescale)[0, 0, 0], torch.tensor([-rescale, -rescale]))


def test_jitter_is_its_own_for_each_and_bounded() -> None:
    grid = field(4, 0.5, 16, 12, seeded())
    noisy = jitter(grid, 5, seeded(2))
    shift = (noisy - grid) * torch.tensor([12.0, 16.0])
    assert noisy.shape == (5, 16, 12, 2) and float(shift.abs().max()) <= 1 + 1e-5
    assert 0.4 < float(shift[:, 2:-2, 2:-2].abs().mean()) < 0.6, "uniform noise of size 1 has a mean size of 1/2"
    assert not torch.equal(noisy[0], noisy[1])
    assert torch.equal(noisy, jitter(grid, 5, seeded(2))) and not torch.equal(noisy, jitter(grid, 5, seeded(3)))
    torch.testing.assert_close(jitter(grid, 2, seeded(), 0.0), grid.expand(2, -1, -1, -1))
    assert jitter(grid, 0, seeded()).shape == (0, 16, 12, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_warp_keeps_dtype_range_and_its_input(dtype: torch.dtype) -> None:
    batch = images().to(dtype)
    before = batch.clone()
    made = warp(batch, field(4, 1.0, 9, 7, seeded()))
    assert made.dtype == dtype and torch.equal(batch, before)
    assert 0 <= float(made.min()) <= float(made.max()) <= 1
    assert warp(batch[:0], field(4, 1.0, 9, 7, seeded())).shape == (0, 3, 9, 7)
