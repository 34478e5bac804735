"""How far apart populations are in a view: AUROC of single numbers, and MMD with a permutation test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from mithridate import metrics
from mithridate.analysis.mmd import permutation_test
from mithridate.views.analysis import Gap, Population

MOST = 500  # rows of each population that are permuted


def pairs(populations: Sequence[Population]) -> Iterator[tuple[str, str]]:
    """Everything with the clean images, and adversarial with backdoor inputs."""
    first = populations[0]
    yield from ((first.name, other.name) for other in populations[1:])
    malicious = [each for each in populations if each.kind in ("adversarial", "backdoor")]
    for i, one in enumerate(malicious):
        yield from ((one.name, other.name) for other in malicious[i + 1 :] if one.kind != other.kind)


def gap(view: str, name: str, values: Mapping[str, Tensor], pair: tuple[str, str], seed: int) -> Gap:
    """The distance of two populations in numbers (n,) or vectors (n, d), each column in units of the first one's spread.

    Raises:
        ValueError: fewer than two inputs in either.
    """
    x, y = (values[each].double() for each in pair)
    auroc = None if x.ndim > 1 else _auroc(x, y)
    x, y = _columns(x), _columns(y)
    center, spread = x.mean(0), x.std(0).clamp_min(1e-9)
    square, p_value = permutation_test(((x - center) / spread)[:MOST], ((y - center) / spread)[:MOST], seed=seed)
    return Gap(view, name, *pair, auroc, max(square, 0.0) ** 0.5, p_value)


def _auroc(x: Tensor, y: Tensor) -> float:
    return metrics.auroc(torch.cat([x, y]), torch.arange(len(x) + len(y)) >= len(x))


def _columns(values: Tensor) -> Tensor:
    return values[:, None] if values.ndim == 1 else values.flatten(1)
