"""Fused p-values equal their closed forms in 60 digits, hold their rate, and go on beyond the rarest clean score."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from mpmath import mp, mpf
from scipy import stats
from torch import Tensor

from mithridate.analysis.fusion import RULES, cauchy, harmonic, log_survival, minimum, tail_scale
from mithridate.calibrate import p_values, threshold

every = pytest.mark.parametrize("rule", RULES)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def closed_form(rule: str, logs: Sequence[float]) -> float:
    with mp.workdps(400):
        p = [mp.exp(mpf(x)) for x in logs]
        if rule == "cauchy":
            mean = sum(mp.cot(mp.pi * q) for q in p) / len(p)
            fused = mp.acot(mean) / mp.pi % 1
        else:
            fused = len(p) / sum(1 / q for q in p) if rule == "harmonic" else 1 - (1 - min(p)) ** len(p)
        return float(mp.log(fused))


LOGS = [-1e-12, -1e-6, -0.01, -0.3, math.log(0.5), -1.0, -4.0, -20.0, -39.0, -41.0, -90.0, -300.0]


@every
def test_rules_equal_their_closed_forms_to_the_last_digits(rule: str) -> None:
    cases = [(a, b, c) for a in LOGS for b in LOGS for c in LOGS]
    fused = RULES[rule](torch.tensor(cases, dtype=torch.float64).T)
    for case, value in zip(cases, fused.tolist(), strict=True):
        assert value == pytest.approx(closed_form(rule, case), rel=1e-6, abs=1e-15), case


def test_rules_on_examples_worked_out_by_hand() -> None:
    p = torch.tensor([[0.1, 0.25, 0.03], [0.2, 0.75, 0.9]]).log()
    assert harmonic(p).exp().tolist() == pytest.approx([2 / 15, 0.375, 2 / (1 / 0.03 + 1 / 0.9)])
    assert minimum(p).exp().tolist() == pytest.approx([0.19, 1 - 0.75**2, 1 - 0.97**2])
    assert float(cauchy(p)[1].exp()) == pytest.approx(0.5), "a quarter and three quarters are opposite"
    expected = [stats.cauchy.sf((stats.cauchy.isf(a) + stats.cauchy.isf(b)) / 2) for a, b in p.exp().T.tolist()]
    assert cauchy(p).exp().tolist() == pytest.approx(expected, rel=1e-5)


@every
def test_one_p_value_is_itself(rule: str) -> None:
    logs = torch.tensor([LOGS], dtype=torch.float64)
    torch.testing.assert_close(RULES[rule](logs), logs[0], rtol=1e-9, atol=0)


@every
def test_p_values_that_no_float_holds_keep_their_order_and_their_gradients(rule: str) -> None:
    rarest = -torch.logspace(2, 8, 200, dtype=torch.float64)
    for other in (-1e5, -1.0, -1e-9, -1e-300, 0.0):
        logs = torch.stack([rarest, torch.full_like(rarest, other)]).requires_grad_()
        fused = RULES[rule](logs)
        assert bool(torch.isfinite(fused).all()) and bool((fused.diff() <= 0).all())
        (gradient,) = torch.autograd.grad(fused.sum(), logs)
        assert bool(torch.isfinite(gradient).all()) and float(gradient.min()) >= 0


@pytest.mark.parametrize("rule", ["cauchy", "minimum"])
@pytest.mark.parametrize("count", [2, 5])
def test_independent_uniform_p_values_give_a_uniform_one(rule: str, count: int) -> None:
    fused = RULES[rule](draw(count, 20_000).log()).exp()
    assert stats.kstest(fused.numpy(), "uniform").pvalue > 0.01


@every
@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_a_calibrated_threshold_holds_the_rate_whatever_the_dependence(rule: str, shared: float) -> None:
    def fused(count: int, seed: int) -> Tensor:
        mixed = torch.where(draw(1, count, seed=seed) < shared, draw(1, count, seed=seed + 1), draw(4, count, seed=seed + 2))
        return -RULES[rule](mixed.log())

    rates = [float(threshold(fused(999, 10 * seed), 0.05).flag(fused(2000, 10 * seed + 5)).double().mean()) for seed in range(40)]
    spread = (0.05 * 0.95 * (1 / 2000 + 1 / 999) / 40) ** 0.5
    assert abs(sum(rates) / 40 - 0.05) < 3.3 * spread


@pytest.mark.parametrize("rule", ["harmonic", "minimum"])
def test_one_very_normal_view_does_not_outvote_an_alarm(rule: str) -> None:
    alarm = torch.tensor([[0.001], [0.9999]], dtype=torch.float64).log()
    assert float(RULES[rule](alarm).exp()) < 0.0021
    assert float(cauchy(alarm).exp()) > 0.99, "here it does: the known weakness"


def correlated(count: int, seed: int) -> Tensor:
    """Clean scores (4, n) of four detectors that see much the same."""
    normal = torch.erfinv(2 * draw(5, count, seed=seed).clamp(1e-9, 1 - 1e-9) - 1) * 2**0.5
    return 0.85**0.5 * normal[:1] + 0.15**0.5 * normal[1:]


@every
def test_one_threshold_for_two_kinds_of_outliers_beats_bonferroni(rule: str) -> None:
    first, second, fresh = (correlated(1000, seed) for seed in (1, 11, 21))
    ordered = first.sort(1).values
    kinds = [correlated(1000, 31), correlated(1000, 41)]
    kinds[0][:2] += 2.2
    kinds[1][2:] += 2.2

    def fused(scores: Tensor) -> Tensor:
        return -RULES[rule](log_survival(scores, ordered, tail_scale(ordered)))

    cut, cuts = threshold(fused(second), 0.05), [threshold(own, 0.05 / 4) for own in second]
    assert float(cut.flag(fused(fresh)).double().mean()) < 0.07
    for kind in kinds:
        apart = torch.stack([each.flag(own) for each, own in zip(cuts, kind, strict=True)]).any(0)
        assert float(cut.flag(fused(kind)).double().mean()) > float(apart.double().mean()) + 0.05


def test_survival_at_clean_scores_is_the_conformal_p_value() -> None:
    clean = draw(3, 200).sort(1).values
    logs = log_survival(clean, clean, tail_scale(clean))
    expected = torch.stack([p_values(own, own) for own in clean]) - 1 / 201  # no score is counted beside itself
    torch.testing.assert_close(logs.exp(), expected.double())


def test_survival_between_clean_scores_lies_between_theirs() -> None:
    clean = torch.tensor([[0.0, 1.0, 3.0]])
    middle = log_survival(torch.tensor([[0.5, 2.0]]), clean, tail_scale(clean))[0].exp().tolist()
    assert middle == pytest.approx([(0.75 * 0.5) ** 0.5, (0.5 * 0.25) ** 0.5])


def test_survival_falls_everywhere_and_never_ends() -> None:
    clean = draw(1, 300).sort(1).values
    scores = torch.cat([-torch.logspace(5, -3, 100), torch.linspace(0, 1, 500), 1 + torch.logspace(-3, 20, 300)])[None].double()
    logs = log_survival(scores.requires_grad_(), clean, tail_scale(clean))
    assert bool(torch.isfinite(logs).all()) and bool((logs <= 0).all())
    assert bool((logs[0].diff() <= 0).all()) and bool((logs[0, 101:].diff() < 0).all())
    (gradient,) = torch.autograd.grad(logs.sum(), scores)
    assert bool(torch.isfinite(gradient).all()) and bool((gradient[0, 100:] < 0).all())


def test_tied_scores_take_the_largest_p_value() -> None:
    clean = torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0, 2.0]])
    logs = log_survival(torch.tensor([[0.0, 1.0, 2.0]]), clean, tail_scale(clean))
    assert logs[0].exp().tolist() == pytest.approx([6 / 7, 4 / 7, 1 / 7])


def test_exponential_tail_is_found_and_continued() -> None:
    clean = (-draw(2, 4000).log()).mul(torch.tensor([[1.0], [30.0]])).sort(1).values
    scale = tail_scale(clean)
    assert scale.tolist() == pytest.approx([1, 30], rel=0.2)
    far = torch.tensor([[20.0], [600.0]], dtype=torch.float64)  # log p = -20 in truth
    assert log_survival(far, clean, scale).flatten().tolist() == pytest.approx([-20, -20], rel=0.2)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e6])
def test_clean_scores_that_coincide_still_have_a_tail(value: float) -> None:
    clean = torch.full((1, 20), value)
    logs = log_survival(torch.tensor([[value - 1, value, value + 1, value + 100]]), clean, tail_scale(clean))
    assert bool(torch.isfinite(logs).all()) and bool((logs[0].diff() < 0).all())
