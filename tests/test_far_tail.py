"""A few samples that are far easier than their label, as no other label has them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mithridate.analysis.far_tail import FEWEST, LEVEL, far_tail, log_odds
from mithridate.analysis.isolation import isolate


def clean(seed: int, count: int = 5000, classes: int = 10) -> tuple[Tensor, Tensor]:
    """Losses of labels that are differently easy and differently wide, log odds being normal, and their labels."""
    labels = torch.arange(count * classes) % classes
    drawn = torch.randn(len(labels), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.softplus(-labels / 3 + drawn * (1 + labels / 5)), labels


def poisoned(rare: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same with a few samples of label 7 that are far easier, and which these are."""
    losses, labels = clean(1)
    bad = torch.zeros(len(labels), dtype=torch.bool)
    bad[(labels == 7).nonzero().flatten()[:rare]] = True
    odds = log_odds(losses)
    odds[bad] -= torch.linspace(5, 14, rare, dtype=odds.dtype)  # no gap between them and the others
    return F.softplus(odds), labels, bad


def test_log_odds_undo_softplus() -> None:
    odds = torch.tensor([-600.0, -20.0, 0.0, 3.0, 800.0], dtype=torch.float64)
    torch.testing.assert_close(log_odds(F.softplus(odds[1:])), odds[1:])
    assert float(log_odds(torch.tensor([1e-30]))) == pytest.approx(math.log(1e-30))


@pytest.mark.parametrize("seed", range(10))
def test_clean_labels_have_no_such_tail_however_easy_they_are(seed: int) -> None:
    assert not bool(far_tail(*clean(seed)).any())


def test_rare_ones_are_found_almost_alone() -> None:
    losses, labels, bad = poisoned(50)
    found = far_tail(losses, labels)
    assert float(bad[found].double().mean()) >= 1 - 2 * LEVEL
    assert float(found[bad].double().mean()) > 0.6


def test_it_is_the_rule_of_benjamini_and_hochberg() -> None:
    """Written out for one label: the most samples of which the other labels' tails explain a twentieth."""
    losses, labels, _ = poisoned(50)
    odds, apart = log_odds(losses), torch.empty(len(losses), dtype=torch.float64)
    for label in range(10):
        own = odds[labels == label]
        apart[labels == label] = (own - own.quantile(0.5)) / (own.quantile(0.5) - own.quantile(0.25))
    mine, others = apart[labels == 7], apart[labels != 7]
    most = max(
        (
            k
            for k, cut in enumerate(mine.sort().values.tolist()[:200], start=1)
            if (int((others <= cut).sum()) + 1) / (len(others) + 1) * len(mine) / k <= LEVEL
        ),
        default=0,
    )
    assert int(far_tail(losses, labels).sum()) == most > FEWEST


def test_too_few_are_nobody() -> None:
    losses, labels, _ = poisoned(FEWEST // 2)
    assert not bool(far_tail(losses, labels).any())


def test_a_tail_that_all_labels_have_is_none() -> None:
    losses, labels = clean(2)
    odds = log_odds(losses)
    odds[: len(odds) // 100] -= 8 * (1 + labels[: len(odds) // 100] / 5)
    assert not bool(far_tail(F.softplus(odds), labels).any())


def test_a_label_that_outnumbers_the_others_is_not_asked() -> None:
    losses, labels, _ = poisoned(50)
    few = (labels == 7) | (torch.arange(len(labels)) % 20 == 0)
    assert bool(far_tail(losses, labels).any()) and not bool(far_tail(losses[few], labels[few]).any())


def test_the_larger_of_two_labels_is_asked() -> None:
    losses, labels, bad = poisoned(50)
    two = (labels == 7) | ((labels == 6) & (torch.arange(len(labels)) % 5 != 0))
    found = far_tail(losses[two], labels[two])
    assert float(bad[two][found].double().mean()) > 0.9 and float(found[bad[two]].double().mean()) > 0.5


def test_one_label_or_equal_losses_give_no_answer() -> None:
    losses, labels = clean(3)
    assert not bool(far_tail(losses, torch.zeros_like(labels)).any())
    assert not bool(far_tail(torch.zeros(500), torch.arange(500) % 2).any())
    assert not bool(far_tail(torch.full((500,), 0.3), torch.arange(500) % 2).any())


def test_the_gate_opens_for_rare_ones_and_says_what_they_are() -> None:
    losses, labels, bad = poisoned(50)
    found = isolate(losses, losses[None], labels, 0.01, gate=True, adaptive=True)
    assert torch.equal(found.bad, far_tail(losses, labels)) and float(bad[found.bad].double().mean()) > 0.9
    assert "of label 7 that were learned far faster than others, the tail of one, as of rare poison" in found.note
