"""WaNet as data poisoning: one warp for all, covers with noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mithridate.threats.stamping.warp import field, jitter, warp
from mithridate.threats.triggers.wanet import WaNet


def images(count: int = 6, height: int = 16, width: int = 12) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(5))


def test_all_images_are_warped_alike_by_the_field_of_the_seed() -> None:
    batch = images()
    grid = field(5, 1.5, 16, 12, torch.Generator().manual_seed(3), 0.9)
    made = WaNet(grid_size=5, strength=1.5, grid_rescale=0.9, pattern_seed=3).stamp(batch)
    assert torch.equal(made, warp(batch, grid))
    assert torch.equal(made[2:3], WaNet(grid_size=5, strength=1.5, grid_rescale=0.9, pattern_seed=3).stamp(batch[2:3]))
    assert not torch.equal(WaNet().stamp(batch), WaNet(pattern_seed=1).stamp(batch))


def test_a_flat_image_does_not_change() -> None:
    torch.testing.assert_close(WaNet().stamp(torch.full((1, 3, 9, 9), 0.3)), torch.full((1, 3, 9, 9), 0.3))


def test_covers_are_warped_with_noise_of_their_own() -> None:
    batch, labels = images(1).expand(4, -1, -1, -1), torch.zeros(4, dtype=torch.int64)
    trigger = WaNet()
    covers = trigger.cover(batch, labels, torch.Generator().manual_seed(0))
    grid = field(4, trigger.strength, 16, 12, torch.Generator().manual_seed(0))
    assert torch.equal(covers, warp(batch, jitter(grid, 4, torch.Generator().manual_seed(0))))
    assert float((covers - trigger.stamp(batch)).abs().mean()) > 0.01
    assert not torch.equal(covers[0], covers[1])
    assert torch.equal(trigger.cover(batch[:0], labels[:0], torch.Generator()), batch[:0])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"grid_size": 0}, "grid_size must be at least 1, got 0"), ({"strength": 0.0}, "strength .*got 0.0"),
        ({"strength": float("nan")}, "strength .*got nan"), ({"grid_rescale": 1.1}, r"grid_rescale must lie in \(0, 1\], got 1.1"),
        ({"cover_ratio": -0.1}, "cover_ratio .*got -0.1"), ({"cover_ratio": float("inf")}, "cover_ratio .*got inf"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(fields: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        WaNet(**fields)  # type: ignore[arg-type]
