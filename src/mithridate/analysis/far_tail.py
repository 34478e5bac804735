"""A few samples of a label that are far easier than its other ones, as no other label has them: poison too rare for a population.

Of each sample the log odds against its label are taken, log((1 - p) / p), which over a label are nearly normal once it is half
learned, and counted in the label's own lower quartiles from its median. How many of a label lie how far out is then held against all
other labels: what these have as well is no discovery. So nothing is assumed of the shape, the poison rate, or how easy a label is.

Source: Benjamini and Hochberg, J. R. Stat. Soc. B 57, 1995 (false discovery rate); Efron, J. Am. Stat. Assoc. 99, 2004 (empirical null).
"""

from __future__ import annotations

import torch
from torch import Tensor

LEVEL = 0.05  # share of what is found in a label that the other labels' tails explain
FEWEST = 20  # samples found in a label: clean ones of GTSRB, whose images are near-copies, have up to ten at that level


def log_odds(losses: Tensor) -> Tensor:
    """Log odds against the label (n,) float64 of losses l (n,) above 0, log(e^l - 1): `softplus` undone, however tiny or large."""
    losses = losses.double()
    return losses + torch.log(-torch.expm1(-losses))


def far_tail(losses: Tensor, labels: Tensor) -> Tensor:
    """Which samples (n,) bool are discoveries of their label; none in a label that outnumbers all others two to one.

    Args:
        losses: (n,) cross-entropy, at least 0, best the lowest of several epochs.
        labels: (n,) int64.
    """
    apart, found = _standardized(losses, labels), torch.zeros(len(losses), dtype=torch.bool, device=losses.device)
    everyone = apart.sort().values
    for label in labels.unique().tolist():
        own = labels == label
        mine, others = apart[own].sort().values, len(apart) - int(own.sum())
        if 2 * others < len(mine):
            continue  # what outnumbers all other labels two to one is learned first for that alone
        as_far = torch.searchsorted(everyone, mine, right=True) - torch.searchsorted(mine, mine, right=True)  # of the others
        expected = (as_far + 1) / (others + 1) * len(mine)
        ranks = torch.arange(1, len(mine) + 1, device=mine.device)
        good = (expected <= LEVEL * ranks).nonzero().flatten()
        if len(good) and int(good[-1]) + 1 >= FEWEST:
            found |= own & (apart <= mine[good[-1]])
    return found


def _standardized(losses: Tensor, labels: Tensor) -> Tensor:
    """Log odds against the label (n,), in lower quartiles from the median of all samples with that label; 0 where these do not differ."""
    odds = log_odds(losses.clamp_min(torch.finfo(losses.dtype).tiny))
    apart = torch.zeros_like(odds)
    for label in labels.unique().tolist():
        own = labels == label
        middle, quarter = odds[own].quantile(0.5), odds[own].quantile(0.25)
        if middle > quarter:
            apart[own] = (odds[own] - middle) / (middle - quarter)
    return apart
