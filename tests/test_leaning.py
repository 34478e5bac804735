"""What is easy only because the model says it of everything is not easy."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from mithridate.analysis.leaning import impartial_losses, leaning

LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 2])


def drawn(classes: int = 4) -> torch.Tensor:
    return torch.randn(len(LABELS), classes, generator=torch.Generator().manual_seed(1))


def test_a_model_that_guesses_leans_to_nothing() -> None:
    logits = torch.zeros(7, 4)
    assert leaning(logits, LABELS).tolist() == pytest.approx([0.0] * 7, abs=1e-6)
    torch.testing.assert_close(impartial_losses(logits, LABELS), torch.full((7,), math.log(4)))


def test_leaning_is_the_median_log_odds_of_others_beyond_those_of_guessing() -> None:
    logits = 3 * drawn().double()
    probabilities = logits.softmax(1)
    odds = (probabilities / (1 - probabilities)).log()
    for i, label in enumerate(LABELS):
        others = odds[label != LABELS, label].sort(descending=True).values
        middle = others[len(others) // 2]  # the lower of two log odds in the middle: what torch calls the median of their negatives
        assert float(leaning(logits, LABELS)[i]) == pytest.approx(max(0.0, float(middle) + math.log(3)))


def test_what_the_model_says_of_everything_is_taken_back() -> None:
    logits = drawn()
    tilted = logits + torch.tensor([8.0, 0, 0, 0])
    assert float(F.cross_entropy(tilted[:2], LABELS[:2])) < 0.02
    away = impartial_losses(tilted, LABELS)[:2]
    assert bool((away > 0.3).all()), "as hard as if it had said it of nothing"
    torch.testing.assert_close(away, impartial_losses(tilted + torch.tensor([5.0, 0, 0, 0]), LABELS)[:2], rtol=1e-2, atol=1e-2)


def test_who_alone_is_given_a_label_keeps_the_low_loss() -> None:
    logits = torch.zeros(7, 4)
    logits[1, 0] = 12.0
    torch.testing.assert_close(impartial_losses(logits, LABELS), F.cross_entropy(logits, LABELS, reduction="none"))


def test_of_one_label_nobody_can_say() -> None:
    logits, labels = drawn(), torch.ones(7, dtype=torch.int64)
    assert leaning(logits, labels).tolist() == [0.0] * 7
    assert impartial_losses(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)).tolist() == [0.0] * 3


def test_losses_are_never_below_the_plain_ones() -> None:
    logits = 6 * drawn()
    assert bool((impartial_losses(logits, LABELS) >= F.cross_entropy(logits, LABELS, reduction="none") - 1e-6).all())


def test_a_model_that_says_one_thing_of_everything_has_finite_losses() -> None:
    logits = drawn() + torch.tensor([900.0, 0, 0, 0])
    assert bool(torch.isfinite(impartial_losses(logits, LABELS)).all())
    assert float(leaning(logits, LABELS)[0]) == pytest.approx(16 + math.log(3), abs=0.2), "as far as float32 tells a loss from nothing"
