"""Holding the steps of an audit to a time budget: what would take too long is tried less hard, or left out."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

from mithridate.audit.settings import Clock
from mithridate.roles import Progress
from mithridate.spec import to_dict

LOOK = 0.05  # of a step's time is spent before its pace is judged
LEAST = 0.25  # of a method's own epochs or steps; cut shorter than that, it does nothing
UNITS = ("epochs", "steps")  # the fields in which methods count their work


class Late(Exception):
    """A step would take longer than it may.

    Attributes:
        share: of the step that would have fit, in [0, 1).
        needs: seconds that the whole step would take.
    """

    def __init__(self, share: float, needs: float) -> None:
        super().__init__(f"{share:.0%} would fit, all of it needs {needs:.0f} s")
        self.share, self.needs = share, needs


class Watch:
    """A progress callback that passes on what it hears, and stops a step that at its pace would take too long.

    Args:
        seconds: that the step may take.
        progress: what is told of the progress.
    """

    def __init__(self, seconds: float, progress: Progress) -> None:
        self.seconds, self.progress, self.begun = seconds, progress, time.perf_counter()

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        """Note the progress.

        Raises:
            Late: at this pace the step does not fit.
        """
        self.progress(task, done, total, note)
        spent = time.perf_counter() - self.begun
        needs = spent * total / max(done, 1)
        if spent > LOOK * self.seconds and needs > 1.1 * self.seconds and done < total:
            raise Late(max(self.seconds - spent, 0) / needs, needs)


def within(
    clock: Clock, seconds: float, method: Any, run: Callable[[Any, Progress], Any], progress: Progress, must: bool = False
) -> tuple[Any, Any] | None:
    """Run a method, with fewer epochs or steps where it would take longer than it may.

    Args:
        clock: is told what was shortened or left out; where it has no limit, neither happens.
        seconds: that it may take.
        method: what is run; one without `epochs` or `steps` is run as it is.
        run: takes the method and a progress callback.
        progress: what is told of the progress.
        must: do not leave it out, however short the time.

    Returns:
        The method as it was run and what `run` gave, or None where it was left out.
    """
    unit = next((name for name in UNITS if hasattr(method, name)), None)
    if not clock.limited or unit is None:
        return method, run(method, progress)
    name = to_dict(method)["method"]
    if seconds <= 0 and not must:
        clock.note(f"{name}: no time was left")
        return None
    try:
        return method, run(method, Watch(seconds, progress))
    except Late as late:
        less = _shortened(method, unit, late.share) if must or late.share >= LEAST else None
        less = method if less is None and must else less
        if less is None:
            clock.note(f"{name}: needs about {late.needs:.0f} s, might take {seconds:.0f} s")
            return None
    clock.note(f"{name}: {getattr(less, unit)} {unit} instead of {getattr(method, unit)}")
    return less, run(less, progress)


def _shortened(method: Any, unit: str, share: float) -> Any:
    """The method with that share of its epochs or steps, but no less than a quarter; None where its other fields forbid it."""
    try:
        return dataclasses.replace(method, **{unit: math.ceil(getattr(method, unit) * max(share, LEAST))})
    except ValueError:
        return None
