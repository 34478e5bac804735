"""Time several ways of doing one job in turn, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def in_turn(
    jobs: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each job in each round, by the wall clock unless said; one unmeasured round warms everything up."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for measured in [False] + [True] * rounds:
        for name, job in jobs.items():
            started = clock()
            job()
            if measured:
                seconds[name].append(clock() - started)
    return seconds


def ratios(seconds: dict[str, list[float]], ours: str, other: str) -> list[float]:
    """How many times faster `ours` is than `other` [median, lowest, highest], round by round."""
    each = [theirs / mine for mine, theirs in zip(seconds[ours], seconds[other], strict=True)]
    return [statistics.median(each), min(each), max(each)]
