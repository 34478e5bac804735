"""A time budget shortens or leaves out what takes too long, says so, and changes nothing where there is none."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mithridate.audit import budget
from mithridate.audit.settings import Clock, Settings
from mithridate.roles import Progress, silent


@dataclass(frozen=True, kw_only=True)
class Slow:
    """Takes two milliseconds a step."""

    steps: int = 100
    least: int = 1

    def __post_init__(self) -> None:
        if self.steps < self.least:
            raise ValueError(f"steps must be at least {self.least}, got {self.steps}")


class FakeTime:
    """Seconds that pass only when somebody works, so that a busy machine decides nothing."""

    now = 0.0

    @classmethod
    def perf_counter(cls) -> float:
        return cls.now


def work(method: Slow, progress: Progress) -> int:
    for step in range(method.steps):
        FakeTime.now += 0.002
        progress("slow", step + 1, method.steps)
    return method.steps


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "to_dict", lambda method: {"method": "slow"})
    monkeypatch.setattr(budget, "time", FakeTime)


def test_without_a_limit_nothing_is_shortened() -> None:
    clock = Clock(None)
    assert budget.within(clock, 0.001, Slow(), work, silent) == (Slow(), 100)
    assert clock.skipped == []


def test_what_fits_is_left_as_it_is() -> None:
    clock = Clock(60)
    assert budget.within(clock, 60, Slow(), work, silent) == (Slow(), 100)
    assert clock.skipped == []


def test_what_does_not_fit_gets_fewer_steps_and_fits() -> None:
    clock, begun = Clock(60), FakeTime.now
    answer = budget.within(clock, 0.15, Slow(steps=150), work, silent)
    assert answer is not None
    used, result = answer
    assert 38 <= used.steps == result < 100
    assert FakeTime.now - begun < 0.2
    assert clock.skipped == [f"slow: {used.steps} steps instead of 150"]


@pytest.mark.parametrize(("seconds", "said"), [(0.02, "needs about"), (0.0, "no time"), (-1.0, "no time")])
def test_what_cannot_be_cut_to_fit_is_left_out(seconds: float, said: str) -> None:
    clock = Clock(60)
    assert budget.within(clock, seconds, Slow(steps=1000), work, silent) is None
    assert said in clock.skipped[0]


def test_what_must_run_runs_a_quarter_at_least() -> None:
    clock = Clock(60)
    assert budget.within(clock, 0.001, Slow(), work, silent, must=True) == (Slow(steps=25), 25)
    assert budget.within(clock, 0.001, Slow(least=50), work, silent, must=True) == (Slow(least=50), 100)
    assert budget.within(clock, 0.001, Slow(least=50), work, silent) is None


def test_a_budget_must_be_a_positive_number() -> None:
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="seconds must be positive"):
            Settings(seconds=wrong)
