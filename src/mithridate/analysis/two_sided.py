"""How far a value lies from the usual one on either side, by class: quantiles of clean images as the scale."""

from __future__ import annotations

import torch
from torch import Tensor

NORMAL = 1.2815515655446004  # the 90 % quantile of a normal distribution


def class_quantiles(values: Tensor, label: Tensor, shares: tuple[float, ...], *, classes: int, least: int) -> Tensor:
    """Quantiles (shares, classes) of the values (n,) of each class; classes with fewer than `least` values have those of all.

    Args:
        values: (n,) floats.
        label: (n,) the class of each.
        shares: in [0, 1].
        classes: how many there are.
        least: values that a class needs for its own, at least 1.
    """
    wanted = torch.tensor(shares, dtype=values.dtype, device=values.device)
    own = (values[label == c] for c in range(classes))
    return torch.stack([(v if len(v) >= least else values).quantile(wanted) for v in own], 1)


def scale(values: Tensor, label: Tensor, *, classes: int, least: int) -> Tensor:
    """Median, and what one normal deviation is below and above it (3, classes), by the 10 % and the 90 % quantile of each class.

    Arguments as for `class_quantiles`. Sides without any spread get a thousandth of the spread of all values.
    """
    low, median, high = class_quantiles(values, label, (0.1, 0.5, 0.9), classes=classes, least=least)
    floor = 1e-3 * float(values.std(correction=0)) + 1e-6
    return torch.stack([median, ((median - low) / NORMAL).clamp_min(floor), ((high - median) / NORMAL).clamp_min(floor)])


def deviation(values: Tensor, label: Tensor, scales: Tensor) -> Tensor:
    """Normal deviations (n,) of the values (n,) from the median of their class (n,), on either side: 0 at the median, never less."""
    median, below, above = scales[:, label]
    side = values - median
    return torch.where(side > 0, side / above, -side / below)
