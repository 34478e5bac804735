"""Metrics equal scikit-learn's and scipy's, ties and extremes included."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from mithridate import metrics

tied = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=60)
flags = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


@given(tied)
@settings(deadline=None, max_examples=200)
def test_auroc_equals_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    scores, malicious = torch.tensor([p[0] for p in pairs]).float(), torch.tensor([p[1] for p in pairs])
    assume(bool(malicious.any()) and not bool(malicious.all()))
    assert metrics.auroc(scores, malicious) == pytest.approx(sk.roc_auc_score(malicious.numpy(), scores.numpy()), abs=1e-12)


def test_auroc_extremes_are_exact() -> None:
    malicious = torch.tensor([False, False, True, True])
    assert metrics.auroc(torch.tensor([0.0, 1.0, 2.0, 3.0]), malicious) == 1.0
    assert metrics.auroc(torch.tensor([3.0, 2.0, 1.0, 0.0]), malicious) == 0.0
    assert metrics.auroc(torch.ones(4), malicious) == 0.5


def test_auroc_is_exact_for_many_samples() -> None:
    """More pairs than float32 can count."""
    malicious = torch.arange(40_000) % 2 == 0
    scores = torch.randint(0, 50, (40_000,), generator=torch.Generator().manual_seed(0)).float()
    assert metrics.auroc(scores, malicious) == pytest.approx(sk.roc_auc_score(malicious.numpy(), scores.numpy()), abs=1e-13)


@given(flags)
@settings(deadline=None, max_examples=200)
def test_precision_recall_f1_equal_scikit_learn(pairs: list[tuple[bool, bool]]) -> None:
    flagged, malicious = torch.tensor([p[0] for p in pairs]), torch.tensor([p[1] for p in pairs])
    if bool(flagged.any()):
        assert metrics.precision(flagged, malicious).value == pytest.approx(sk.precision_score(malicious, flagged, zero_division=0))
    if bool(malicious.any()):
        assert metrics.true_positive_rate(flagged, malicious).value == pytest.approx(sk.recall_score(malicious, flagged))
        assert metrics.f1(flagged, malicious) == pytest.approx(sk.f1_score(malicious, flagged, zero_division=0))
    if not bool(malicious.all()):
        assert metrics.false_positive_rate(flagged, malicious).value == pytest.approx(sk.recall_score(~malicious, flagged))


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95, 0.999]))
@settings(deadline=None, max_examples=80)
def test_interval_equals_scipy(case: tuple[int, int], level: float) -> None:
    exact = stats.binomtest(*case).proportion_ci(level, method="exact")
    assert metrics.clopper_pearson(*case, level) == pytest.approx((exact.low, exact.high), abs=1e-8)


def test_interval_of_none_and_all() -> None:
    assert metrics.clopper_pearson(0, 10)[0] == 0.0
    assert metrics.clopper_pearson(10, 10)[1] == 1.0
    assert metrics.clopper_pearson(0, 100)[1] == pytest.approx(1 - 0.025 ** (1 / 100))


@pytest.mark.parametrize(
    ("hits", "of", "level", "field"), [(1, 0, 0.95, "of"), (3, 2, 0.95, "hits"), (-1, 2, 0.95, "hits"), (1, 2, 1.0, "level")]
)
def test_interval_refuses(hits: int, of: int, level: float, field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field} must"):
        metrics.clopper_pearson(hits, of, level)


def test_accuracies_and_success_leave_the_target_class_out() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    predicted = torch.tensor([0, 0, 0, 1, 0, 0])
    assert str(metrics.accuracy(predicted, labels)).startswith("50.0% [")
    assert metrics.attack_success_rate(predicted, labels, 0) == metrics.Rate(3, 4)
    assert metrics.robust_accuracy(predicted, labels, 0) == metrics.Rate(1, 4)


def test_all_to_all_success() -> None:
    labels = torch.arange(6) % 3
    predicted = (labels + 1) % 3
    predicted[0] = 0
    assert metrics.attack_success_rate(predicted, labels, (labels + 1) % 3) == metrics.Rate(5, 6)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [((0.9, 1.0), (0.9, 0.0), 1.0), ((0.9, 1.0), (0.8, 0.5), 0.7), ((0.9, 0.2), (0.95, 0.4), 0.5), ((0.9, 0.2), (0.4, 0.4), 0.25)],
)
def test_defense_effectiveness(before: tuple[float, float], after: tuple[float, float], expected: float) -> None:
    assert metrics.defense_effectiveness(*before, *after) == pytest.approx(expected)


def test_defense_effectiveness_refuses_percentages() -> None:
    with pytest.raises(ValueError, match=r"^asr_after must lie in \[0, 1\], got 3"):
        metrics.defense_effectiveness(0.9, 1.0, 0.9, 3)


def test_detection_rate_uses_held_out_scores() -> None:
    assert metrics.detection_rate(torch.tensor([98.5, 100.0, 99.0, 0.0]), torch.arange(1.0, 100.0), 0.02) == metrics.Rate(3, 4)


def test_one_sided_inputs_are_named() -> None:
    none, some, every = torch.zeros(3, dtype=torch.bool), torch.tensor([True, False, True]), torch.ones(3, dtype=torch.bool)
    cases = [
        ("malicious must hold both", lambda: metrics.auroc(torch.ones(3), every)),
        ("malicious must hold both", lambda: metrics.auroc(torch.ones(3), none)),
        ("malicious must be bool", lambda: metrics.auroc(torch.ones(3), torch.ones(3))),
        ("scores must be finite", lambda: metrics.auroc(torch.tensor([0.0, float("nan"), 1.0]), some)),
        ("scores must have shape", lambda: metrics.auroc(torch.ones(0), none[:0])),
        ("malicious must have shape", lambda: metrics.auroc(torch.ones(2), some)),
        ("malicious must hold at least one True", lambda: metrics.f1(some, none)),
        ("malicious must hold at least one True", lambda: metrics.true_positive_rate(some, none)),
        ("malicious must hold at least one False", lambda: metrics.false_positive_rate(some, every)),
        ("flagged must hold at least one True", lambda: metrics.precision(none, some)),
        ("predicted must have shape", lambda: metrics.accuracy(torch.ones(0), torch.ones(0))),
        ("labels must have shape", lambda: metrics.accuracy(torch.ones(2), torch.ones(3))),
        ("labels must hold a class other", lambda: metrics.attack_success_rate(torch.ones(3), torch.ones(3), 1)),
        ("labels must hold a class other", lambda: metrics.robust_accuracy(torch.ones(3), torch.ones(3), 1)),
    ]
    for message, call in cases:
        with pytest.raises(ValueError, match=f"^{message}"):
            call()


def test_binomial_tail_is_scipys() -> None:
    for hits, of, rate in ((0, 10, 0.1), (3, 200, 0.01), (200, 200, 0.01), (7, 9, 0.5)):
        assert metrics.binomial_tail(hits, of, rate) == pytest.approx(float(stats.binom.sf(hits - 1, of, rate)), rel=1e-9)
    with pytest.raises(ValueError, match="rate must lie in"):
        metrics.binomial_tail(1, 2, 1.0)
