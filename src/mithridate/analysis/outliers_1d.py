"""Is one class's distribution of suspicion two populations? An automatic cut that needs no poison rate."""

from __future__ import annotations

import torch
from torch import Tensor

MAJORITY = 2 / 3  # largest share of a class that may be called suspicious


def suspicious(scores: Tensor, labels: Tensor) -> Tensor:
    """Which samples form a separate, higher-scored population within their class, as bool (n,).

    Each class is judged on its own by `split` of the roots of its scores, compressed so that a heavy tail is no second
    population. The higher one is believed up to two thirds of a class: a heavily poisoned class is mostly poison.

    Args:
        scores: (n,) finite, at least 0, higher = more suspicious.
        labels: (n,) int64.

    Raises:
        ValueError: shapes differ, or scores that are negative or not finite.
    """
    if scores.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"scores and labels must both have shape (n,), got {tuple(scores.shape)} and {tuple(labels.shape)}")
    if not bool((torch.isfinite(scores) & (scores >= 0)).all()):
        raise ValueError("scores must be finite and at least 0")
    flagged = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    for label in labels.unique().tolist():
        own = labels == label
        roots = scores[own].sqrt()
        spread = 1.4826 * (roots - roots.median()).abs().median()
        values = ((roots - roots.median()) / spread).asinh()
        cut = split(values) if bool(torch.isfinite(values).all()) else None
        if cut is not None and float((values > cut).float().mean()) <= MAJORITY:
            flagged[own] = values > cut
    return flagged


def split(values: Tensor, least: float = 0.005, depth: float = 0.5, bins: int = 128) -> float | None:
    """The emptiest place between two populations of values (n,), or None where there is only one.

    The density is estimated with a Gaussian kernel (width 0.9 min(std, iqr / 1.34) n^(-1/5), Silverman 1986, section
    3.4.2). A cut is accepted where the density falls below `depth` times the lower of the highest peaks on its two sides,
    and each side holds at least `least` of the values and ten of them.

    Args:
        values: (n,) finite.
        least: smallest share of a population, in (0, 0.5).
        depth: how empty the valley must be, in (0, 1); one population never has a valley but by chance.
        bins: places at which the density is estimated.
    """
    count = len(values)
    if count < 20:
        return None
    quartiles = values.quantile(torch.tensor([0.25, 0.75], dtype=values.dtype, device=values.device))
    width = 0.9 * float(torch.minimum(values.std(), (quartiles[1] - quartiles[0]) / 1.34)) * count**-0.2
    if width <= 0:
        return None
    low, high = float(values.min()), float(values.max())
    places = torch.linspace(low, high, bins, dtype=values.dtype, device=values.device)
    density = torch.stack([(-0.5 * ((values - place) / width).square()).exp().mean() for place in places])
    left, right = density.cummax(0).values, density.flip(0).cummax(0).values.flip(0)
    above = (values[None] > places[:, None]).float().mean(1)
    few = max(least, 10 / count)
    allowed = (above >= few) & (above <= 1 - few)
    ratio = torch.where(allowed, density / torch.minimum(left, right), torch.ones_like(density))
    return float(places[ratio.argmin()]) if float(ratio.min()) < depth else None
