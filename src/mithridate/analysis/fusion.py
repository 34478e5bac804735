"""P-values that go on beyond the rarest clean score, and one p-value made of several.

All in logarithms, because the p-value of a clear outlier is smaller than any float, and in double precision where the device
has it. A p-value made of several is one of its own only under the rule's assumptions; as a score, which is calibrated anew, it
needs none of them.

Sources: Liu and Xie 2020, arXiv 1808.09011, section 2 (Cauchy); Wilson 2019, PNAS 116, equation 1 (harmonic mean); Sidak 1967,
JASA 62 (minimum); Pickands 1975, Annals of Statistics 3 (tails beyond a high threshold; here with shape 0, which has no end).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

SURE = -40.0  # e^-40 is nothing beside 1, in any float
LOW = -80.0  # e^-80 is still a normal float


def log_survival(scores: Tensor, ordered: Tensor, scale: Tensor) -> Tensor:
    """Log p-values (k, m), negative and finite: how rare each score is among clean ones; falls with the score, with gradients.

    At each clean score it is the conformal one, (how many are at least as high) / (n + 1), and linear in between. Above the
    highest, p falls exponentially; below the lowest, it rises towards 1.

    Args:
        scores: (k, m) of k detectors.
        ordered: (k, n) clean scores of each, ascending, n > 1; ties take the largest p-value.
        scale: (k,) of each exponential tail, as `tail_scale` gives it.
    """
    scores, ordered, scale = _wide(scores), _wide(ordered).contiguous(), _wide(scale)[:, None]
    count = ordered.shape[1]
    level = (torch.arange(count, 0, -1, device=ordered.device).to(ordered) / (count + 1)).log()
    place = torch.searchsorted(ordered, scores.detach().contiguous())
    after = place.clamp(1, count - 1)
    left, right = ordered.gather(1, after - 1), ordered.gather(1, after)
    share = ((scores - left) / (right - left).clamp_min(torch.finfo(scores.dtype).tiny)).clamp(0, 1)
    between = level[after - 1] + share * (level[after] - level[after - 1])
    over, under = (scores - ordered[:, -1:]).clamp_min(0) / scale, (scores - ordered[:, :1]).clamp_max(0) / scale
    return torch.where(place == count, level[-1] - over, torch.where(place == 0, level[0] * under.exp(), between))


def tail_scale(ordered: Tensor) -> Tensor:
    """Scale (k,) of an exponential tail: by how much the top 5 % of clean scores (k, n), at least five, exceed the next one.

    It is the maximum likelihood estimate. Where clean scores hardly differ, a small share of their range or size, so never zero.
    """
    ordered = _wide(ordered)
    top = min(ordered.shape[1] - 1, max(5, ordered.shape[1] // 20))
    excess = (ordered[:, -top:] - ordered[:, -top - 1, None]).mean(1)
    least = torch.maximum(1e-3 * (ordered[:, -1] - ordered[:, 0]), 1e-6 * ordered.abs().amax(1)).clamp_min(1e-12)
    return torch.maximum(excess, least)


def cauchy(log_p: Tensor) -> Tensor:
    """Log of 1/2 - arctan(mean tan((1/2 - p) pi)) / pi, (n,) of log p-values (k, n) <= 0.

    Exact for independent p-values, close for small ones whatever their dependence. Its weakness: a p-value near 1 outvotes
    one near 0.
    """
    log_p = _wide(log_p)
    tiny = torch.finfo(log_p.dtype).tiny ** 0.25  # its inverse square, in the gradient, is still finite
    rarest, p, rest = log_p.amin(0), log_p.exp().clamp_min(tiny), (-log_p.expm1()).clamp_min(tiny)
    cotangent = torch.where(p < rest, p, -rest).mul(math.pi).tan().reciprocal()
    mean = ((rarest - log_p).exp() * p * cotangent).mean(0)  # of the cotangents, times the smallest p-value: about 1 / pi
    ratio = rarest - torch.where(mean > 0, mean, 1.0).log()
    small = rarest.clamp_min(LOW).exp()
    above = torch.where(ratio < SURE, ratio, torch.atan2(small, mean.abs()).log()) - math.log(math.pi)
    return torch.where(mean > 0, above, (-torch.atan2(small, mean.abs()) / math.pi).log1p())


def harmonic(log_p: Tensor) -> Tensor:
    """Log of the harmonic mean, k / sum 1 / p, (n,) of log p-values (k, n) <= 0; like Cauchy for small ones, and none outvotes."""
    log_p = _wide(log_p)
    return math.log(len(log_p)) - (-log_p).logsumexp(0)


def minimum(log_p: Tensor) -> Tensor:
    """Log of 1 - (1 - min p)^k, (n,) of log p-values (k, n) <= 0: exact for independent ones; ranks inputs as the minimum does."""
    rarest, count = _wide(log_p).amin(0), len(log_p)
    return torch.where(rarest < SURE, rarest + math.log(count), _log_rest(count * _log_rest(rarest.clamp_min(SURE))))


RULES: dict[str, Callable[[Tensor], Tensor]] = {"cauchy": cauchy, "harmonic": harmonic, "minimum": minimum}


def _log_rest(log_p: Tensor) -> Tensor:
    """log(1 - p) with all its digits, at either end."""
    half, tiny = -math.log(2), torch.finfo(log_p.dtype).tiny ** 0.25
    return torch.where(log_p > half, (-log_p.expm1()).clamp_min(tiny).log(), (-log_p.clamp_max(half).exp()).log1p())


def _wide(values: Tensor) -> Tensor:
    return values if values.device.type == "mps" else values.double()
