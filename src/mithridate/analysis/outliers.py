"""Is one class far below the others? A robust outlier score and honest p-values for the most extreme of a few values.

Source: Hampel, JASA 1974 (the median absolute deviation, MAD); Wang et al., IEEE S&P 2019, section V.A (the anomaly index).
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from mithridate.checks import check_number

SIMULATIONS = 20_000


def low_scores(values: Tensor, floor: float = 0.0) -> Tensor:
    """How many robust standard deviations each value lies below the median: (..., k) for values (..., k).

    Args:
        values: (..., k) finite, roughly normal but for outliers (take the logarithm of sizes first).
        floor: smallest standard deviation believed, at least 0; it keeps a chance cluster from making an outlier of its neighbor.

    Raises:
        ValueError: no values, values that are not finite, or a negative floor.
    """
    if not values.shape or not values.shape[-1]:
        raise ValueError(f"values must have shape (..., k) with k > 0, got {tuple(values.shape)}")
    if not bool(torch.isfinite(values).all()):
        raise ValueError("values must be finite")
    check_number("floor", floor, "[0, inf]")
    values = values.double()
    below = _median(values) - values
    spread = 1.4826 * _median(below.abs())
    return below / spread.clamp_min(max(floor, 1e-12))


def low_p_value(values: Tensor, floor: float = 0.0) -> float:
    """Chance that the lowest of k values scores as high as the lowest of these, in [1 / (SIMULATIONS + 1), 1].

    The null: k independent draws from one normal distribution of any mean and spread, simulated with a fixed seed. With a
    `floor` the p-value is conservative. Fewer than three values leave nothing to compare: 1.

    Args:
        values: (k,) as for `low_scores`.
        floor: as for `low_scores`.
    """
    score, count = float(low_scores(values, floor).max()), values.numel()
    if count < 3:
        return 1.0
    null = _null(count)
    reached = len(null) - int(torch.searchsorted(null, score - 1e-9))
    return (1 + reached) / (len(null) + 1)


def below_p_value(values: Tensor, mean: float, deviation: float) -> float:
    """Chance that the lowest of k independent normal values with a known mean and deviation is as low as the lowest of these.

    1 - (1 - Phi(z))^k, exact under that null (Šidák, JASA 1967).

    Args:
        values: (k,) finite.
        mean: of the null.
        deviation: of the null, above 0.

    Raises:
        ValueError: no values, or a deviation that is not positive.
    """
    if not values.numel():
        raise ValueError("values must not be empty")
    check_number("deviation", deviation, "(0, inf]")
    tail = 0.5 * math.erfc((mean - float(values.min())) / deviation / math.sqrt(2))
    return 1.0 if tail >= 1 else -math.expm1(values.numel() * math.log1p(-tail))


def either(*p_values: float) -> float:
    """One p-value for "any of these tests", valid however they depend on each other (Bonferroni)."""
    return min(1.0, len(p_values) * min(p_values))


@cache
def _null(count: int) -> Tensor:
    """Sorted highest `low_scores` (SIMULATIONS,) of `count` standard normal values."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(SIMULATIONS, count, generator=generator, dtype=torch.float64)
    return low_scores(draws).amax(1).sort().values


def _median(values: Tensor) -> Tensor:
    """The median over the last dimension, kept; the mean of the middle two where their number is even."""
    ordered, count = values.sort(-1).values, values.shape[-1]
    return ordered[..., (count - 1) // 2 : count // 2 + 1].mean(-1, keepdim=True)
