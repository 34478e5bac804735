"""The batched trigger search: its targets, its restarts, and what it leaves behind."""

from __future__ import annotations

import pytest
import torch
from tests.test_aft import CLASSES, Corners, quarters
from torch import Tensor, nn

from mithridate.analysis.reversal import Search, reverse, transfer_rates
from mithridate.data import Samples


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_chosen_targets_come_in_their_order() -> None:
    model, samples = Corners(shortcut=2), quarters()
    masks, patterns = reverse(model, samples, Search(steps=150), generator(), targets=[2, 0])
    assert masks.shape == (2, 1, 10, 10) and patterns.shape == (2, 1, 10, 10)
    assert float(masks[0].sum()) < 0.5 * float(masks[1].sum())
    rates = transfer_rates(model, samples, torch.ones(CLASSES, 1, 10, 10) * masks[:1], patterns[:1].expand(CLASSES, -1, -1, -1))
    assert float(rates[2]) >= 0.9 and float(rates[[0, 1, 3]].max()) <= 0.05


def test_more_restarts_never_give_a_larger_mask() -> None:
    one, _ = reverse(Corners(), quarters(), Search(steps=60), generator())
    three, _ = reverse(Corners(), quarters(), Search(steps=60, restarts=3), generator())
    assert bool((three.sum((1, 2, 3)) <= one.sum((1, 2, 3))).all())
    assert bool((three.sum((1, 2, 3)) < one.sum((1, 2, 3))).any())


def test_a_search_that_finds_nothing_says_so_with_a_full_mask() -> None:
    model = Corners()
    model.linear.weight.data.zero_()
    model.linear.bias.data = torch.tensor([9.0, 0.0, 0.0, 0.0])
    masks, _ = reverse(model, quarters(), Search(steps=20), generator(), targets=[1])
    assert float(masks.min()) == 1.0


def test_progress_counts_all_restarts() -> None:
    told: list[tuple[int, int]] = []
    reverse(Corners(), quarters(), Search(steps=5, restarts=2), generator(), lambda task, done, total, note="": told.append((done, total)))
    assert told[-1] == (10, 10) and told == sorted(told)


@pytest.mark.parametrize("field", ["steps", "batch_size", "patience", "restarts"])
def test_counts_below_one_are_named(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be at least 1, got 0"):
        Search(**{field: 0})


class Viewing(nn.Module):
    """Flattens with `view`, as many models do, which channels-last features do not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4 * 64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).view(len(x), -1))


def test_models_that_flatten_with_view_can_be_searched() -> None:
    clean = Samples(torch.rand(6, 1, 8, 8, generator=generator()), torch.arange(6) % 3)
    masks, patterns = reverse(Viewing(), clean, Search(steps=2), generator())
    assert masks.shape == (3, 1, 8, 8) and patterns.shape == (3, 1, 8, 8)
