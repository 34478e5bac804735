"""The sequential test errs no more often than it was designed to, stops when one outcome at a time would, and can always stop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mithridate.analysis.sequential import Walk, bounds, gains, reachable, settled, walk, walk_both


def flips(rate: float, outcomes: int, tests: int, seed: int = 0) -> Tensor:
    return torch.rand(outcomes, tests, generator=torch.Generator().manual_seed(seed)) < rate


def one_by_one(outcomes: list[bool], null: float, alternative: float, limits: tuple[float, float]) -> tuple[float, int, int]:
    evidence = 0.0
    for step, happened in enumerate(outcomes, 1):
        evidence += math.log(alternative / null) if happened else math.log((1 - alternative) / (1 - null))
        if evidence >= limits[1] or evidence <= limits[0]:
            return evidence, (1 if evidence > 0 else -1), step
    return evidence, 0, len(outcomes)


@pytest.mark.parametrize(("null", "alternative"), [(0.3, 0.6), (0.3, 0.05), (0.02, 0.2), (0.9, 0.6), (0.5, 0.7)])
@pytest.mark.parametrize(("alpha", "beta"), [(0.05, 0.05), (0.01, 0.1), (0.1, 0.02)])
def test_error_rates_are_those_asked_for(null: float, alternative: float, alpha: float, beta: float) -> None:
    """A rate that is the null is accused, and one that is the alternative cleared, no more often than designed."""
    limits, tests = bounds(alpha, beta), 3000
    happens, fails = gains(torch.full((tests,), null), torch.full((tests,), alternative))
    usual = walk(flips(null, 600, tests), happens, fails, limits)
    unusual = walk(flips(alternative, 600, tests, seed=1), happens, fails, limits)
    assert bool((usual.verdict != 0).all()) and bool((unusual.verdict != 0).all())
    false_alarms, misses = float((usual.verdict == 1).float().mean()), float((unusual.verdict == -1).float().mean())
    assert false_alarms <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / tests)
    assert misses <= beta + 3 * math.sqrt(beta * (1 - beta) / tests)
    assert false_alarms > 0 and misses > 0, "the test would stop too late"


@pytest.mark.parametrize(("rate", "accepts"), [(0.45, -1), (0.55, 1)])
def test_mean_length_is_walds(rate: float, accepts: int) -> None:
    """Close rates, where evidence hardly jumps over the limits: Wald's expected number of outcomes, within a tenth."""
    alpha = beta = 0.05
    limits = bounds(alpha, beta)
    happens, fails = gains(torch.full((2000,), 0.45), torch.full((2000,), 0.55))
    found = walk(flips(rate, 1500, 2000), happens, fails, limits)
    drift = rate * float(happens[0]) + (1 - rate) * float(fails[0])
    hit = alpha if accepts < 0 else 1 - beta
    assert float(found.steps.float().mean()) == pytest.approx((hit * limits[1] + (1 - hit) * limits[0]) / drift, rel=0.1)


def test_walk_equals_a_loop_over_outcomes_and_inputs() -> None:
    outcomes, limits = flips(0.25, 60, 300), bounds(0.05, 0.1)
    null = torch.linspace(0.05, 0.5, 300, dtype=torch.float64)
    alternative = null + 0.3
    found = walk(outcomes, *gains(null, alternative), limits)
    for i in range(300):
        expected = one_by_one(outcomes[:, i].tolist(), float(null[i]), float(alternative[i]), limits)
        assert (int(found.verdict[i]), int(found.steps[i])) == expected[1:]
        assert float(found.evidence[i]) == pytest.approx(expected[0])
    assert {-1, 0, 1} == set(found.verdict.tolist())


@pytest.mark.parametrize("size", [1, 7, 60])
def test_parts_give_what_the_whole_gives(size: int) -> None:
    outcomes, limits = flips(0.25, 60, 300), bounds(0.05, 0.1)
    grown = gains(torch.full((300,), 0.2, dtype=torch.float64), torch.full((300,), 0.35, dtype=torch.float64))
    whole, part = walk(outcomes, *grown, limits), None
    for each in outcomes.split(size):
        part = walk(each, *grown, limits, part)
    assert part is not None
    assert torch.equal(part.verdict, whole.verdict)
    assert torch.allclose(part.evidence, whole.evidence)
    decided = whole.verdict != 0
    assert torch.equal(part.steps[decided], whole.steps[decided])


@pytest.mark.parametrize("most", [5, 20, 100])
@pytest.mark.parametrize("errors", [(0.05, 0.05), (0.001, 0.01)])
def test_both_limits_can_be_reached(most: int, errors: tuple[float, float]) -> None:
    """Whatever two rates are asked for, even equal ones or 0 and 1, and whichever is the null."""
    limits = bounds(*errors)
    ends = torch.tensor([0.0, 0.0, 0.0124 * 0.9, 0.3, 0.5, 0.97, 1.0])
    lower, higher = reachable(ends, torch.tensor([0.0, 1.0, 0.0124 * 1.1, 0.9, 0.5, 0.99, 1.0]), limits, most)
    assert bool((lower < higher).all()) and float(lower.min()) > 0 and float(higher.max()) < 1
    for null, alternative in ((lower, higher), (higher, lower)):
        grown = gains(null, alternative)
        for outcome in (True, False):
            verdict = walk(torch.full((most, len(ends)), outcome), *grown, limits).verdict
            assert torch.equal(verdict, torch.full_like(verdict, 1 if outcome == (alternative is higher) else -1))


def test_rates_far_enough_apart_are_left_alone() -> None:
    lower, higher = reachable(torch.tensor([0.1]), torch.tensor([0.4]), bounds(0.05, 0.05), 100)
    assert (float(lower), float(higher)) == (pytest.approx(0.1), pytest.approx(0.4))


def test_rates_of_the_published_code_need_more_mutants_than_there_are() -> None:
    """Jin et al. test 0.0124 within a tenth, with 100 mutants: not even 1,100 without any change clear an input."""
    happens, fails = gains(torch.tensor([0.0124 * 0.9]).double(), torch.tensor([0.0124 * 1.1]).double())
    needed = walk(torch.zeros(2000, 1, dtype=torch.bool), happens, fails, bounds(0.05, 0.05))
    assert int(needed.verdict) == -1 and int(needed.steps) == 1173


def test_both_sides() -> None:
    """Rates far below and far above are unusual, the usual one is settled when both tests clear it."""
    rates = torch.tensor([0.02, 0.3, 0.3, 0.8])[:, None].expand(4, 900)
    outcomes = torch.cat([flips(p, 400, 300, seed=i) for i, p in enumerate((0.01, 0.3, 0.9))], 1)
    found = walk_both(outcomes, rates, bounds(0.01, 0.01))
    assert found.verdict.shape == (2, 900)
    assert bool(settled(found).all())
    below, usual, above = (found.verdict == 1).float().split(300, dim=1)
    assert float(below[0].mean()) > 0.97 and float(above[1].mean()) > 0.97 and float(usual.amax(0).mean()) < 0.03
    half = found[torch.tensor([1, 400])]
    assert torch.equal(half.evidence, found.evidence[:, [1, 400]])
    open_ = Walk(torch.zeros(2, 3), torch.tensor([[0, -1, -1], [1, 0, -1]], dtype=torch.int8), torch.ones(2, 3, dtype=torch.int64))
    assert settled(open_).tolist() == [True, False, True]


def test_bad_arguments_are_named() -> None:
    for errors in ((0.0, 0.1), (0.1, 0.0), (0.6, 0.5)):
        with pytest.raises(ValueError, match="alpha and beta must be positive and add up to less than 1"):
            bounds(*errors)
    for null, alternative in ((0.0, 0.5), (0.5, 1.0), (0.3, 0.3)):
        with pytest.raises(ValueError, match="null and alternative must hold rates"):
            gains(torch.tensor([null]), torch.tensor([alternative]))
