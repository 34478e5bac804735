"""Thresholds keep their promise, exactly where it can be computed and on average where it is random."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mithridate.calibrate import needed, p_values, threshold


@pytest.mark.parametrize(
    ("count", "fpr", "rank"), [(99, 0.01, 99), (100, 0.01, 100), (199, 0.01, 198), (9, 0.1, 9), (99, 0.07, 93), (999, 0.05, 950)]
)
def test_cut_is_the_conformal_order_statistic(count: int, fpr: float, rank: int) -> None:
    scores = torch.arange(1.0, count + 1)[torch.randperm(count, generator=torch.Generator().manual_seed(0))]
    assert float(threshold(scores, fpr).cut) == rank


@given(st.integers(1, 400), st.floats(0.005, 0.9), st.integers(1, 8))
@settings(deadline=None, max_examples=60)
def test_a_new_sample_exceeds_the_cut_at_most_at_the_asked_rate(count: int, fpr: float, values: int) -> None:
    """Exact: of n + 1 exchangeable scores each is the new one equally often. Few distinct values make ties."""
    pool = torch.randint(0, values * 40, (count + 1,), generator=torch.Generator().manual_seed(count)).float()
    if count < needed(fpr):
        with pytest.raises(ValueError, match="scores"):
            threshold(pool[1:], fpr)
        return
    exceeded = [bool(threshold(torch.cat([pool[:i], pool[i + 1 :]]), fpr).flag(pool[i : i + 1])) for i in range(count + 1)]
    assert sum(exceeded) <= (count + 1) * fpr + 1e-6


def test_each_class_keeps_the_rate_although_scales_differ() -> None:
    generator = torch.Generator().manual_seed(1)
    predicted = torch.randint(0, 3, (6000,), generator=generator)
    scores = torch.randn(6000, generator=generator) * torch.tensor([1.0, 5.0, 20.0])[predicted]
    fitted = threshold(scores[:3000], 0.05, predicted[:3000])
    flagged = fitted.flag(scores[3000:], predicted[3000:])
    pooled = threshold(scores[:3000], 0.05).flag(scores[3000:])
    for label in range(3):
        assert 0.02 < float(flagged[predicted[3000:] == label].float().mean()) < 0.09
    assert not bool(pooled[predicted[3000:] == 0].any())
    assert float(pooled[predicted[3000:] == 2].float().mean()) > 0.1


def test_small_classes_share_a_threshold() -> None:
    scores = torch.cat([torch.arange(200.0), 1000 + torch.arange(10.0), 2000 + torch.arange(10.0)])
    predicted = torch.cat([torch.zeros(200), torch.ones(10), torch.full((10,), 2)]).long()
    cut = threshold(scores, 0.1, predicted, classes=4, least=50).cut
    assert cut.shape == (4,)
    assert cut[0] == 180  # the 181st smallest of its own 200
    assert cut[1] == cut[2] == cut[3] == 2008  # the 19th of the 20 left
    assert threshold(scores[:205], 0.1, predicted[:205], least=50).cut[1] == 185  # five are too few even together: all 205


def test_class_thresholds_need_known_classes() -> None:
    fitted = threshold(torch.arange(50.0), 0.1, torch.arange(50) % 2)
    with pytest.raises(ValueError, match="predicted must be given"):
        fitted.flag(torch.ones(3))
    with pytest.raises(ValueError, match=r"predicted must lie in \[0, 2\), got \[0, 2\]"):
        fitted.flag(torch.ones(3), torch.arange(3))
    with pytest.raises(ValueError, match="predicted must have shape"):
        fitted.flag(torch.ones(3), torch.arange(2))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    scores = torch.tensor([0.0, bad] * 50)
    with pytest.raises(ValueError, match="^scores must be finite, got 50"):
        threshold(scores, 0.1)
    with pytest.raises(ValueError, match="^scores must be finite"):
        threshold(torch.arange(50.0), 0.1).flag(scores)
    with pytest.raises(ValueError, match="^clean_scores must be finite"):
        p_values(torch.zeros(1), scores)


@pytest.mark.parametrize("fpr", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_rates_outside_zero_and_one_are_refused(fpr: float) -> None:
    with pytest.raises(ValueError, match="^fpr must lie in"):
        threshold(torch.arange(50.0), fpr)


def test_too_few_samples_are_named() -> None:
    with pytest.raises(ValueError, match="0.01 needs at least 99 clean samples, got 98"):
        threshold(torch.arange(98.0), 0.01)
    with pytest.raises(ValueError, match=r"^scores must have shape \(n,\)"):
        threshold(torch.ones(0), 0.5)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30), st.lists(st.integers(-6, 6), min_size=1, max_size=10))
@settings(deadline=None, max_examples=100)
def test_p_values_count(clean: list[int], scores: list[int]) -> None:
    expected = [(1 + sum(c >= s for c in clean)) / (len(clean) + 1) for s in scores]
    assert p_values(torch.tensor(scores).float(), torch.tensor(clean).float()).tolist() == pytest.approx(expected)


def test_p_value_and_threshold_agree() -> None:
    clean = torch.randn(500, generator=torch.Generator().manual_seed(2)).round(decimals=1)
    scores = torch.linspace(-4, 4, 301)
    assert torch.equal(threshold(clean, 0.05).flag(scores), p_values(scores, clean) <= 0.05)
