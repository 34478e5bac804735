"""Mutants of a model as seeds: an operator and a seed give the same mutated weights again, on any machine and in any precision.

Operators work on the weights and biases of chosen linear layers and convolutions together, never on normalization:

- `fuzz`: noise N(0, (level * std(W))^2) on every weight of every layer, biases kept (Jin et al. 2020, in their released code).
  Theirs has the scale `max(W) * v` instead, which hangs on one outlier, and a mean that shifts every logit. Their v = 0.65 is
  a level of 3.5 and 1.9 in the two dense layers of their MNIST network, v = 0.3 one of 1.6 and 0.9.
- `gf`, `ws`, `ns`, `nai`: Gaussian fuzzing, weight shuffling, neuron switch and neuron activation inverse of mMutant (Wang et
  al., ICSE 2019, in their released code); the level is the share that is mutated, of all numbers (gf) or of all neurons. A
  neuron is one row of a linear layer or one filter of a convolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
STEPS = 14


def mutate(operator: str, weights: Weights, level: float, seed: int) -> dict[str, Tensor]:
    """One mutant: new tensors under the same names, drawn on the CPU whatever the device.

    Args:
        operator: a name in `OPERATORS`.
        weights: `<layer>.weight` (rows, ...) and, where there is one, `<layer>.bias` (rows,) of the chosen layers.
        level: how strong, at least 0, which changes nothing; at most `strongest(operator)`.
        seed: of all chance, at least 0.

    Raises:
        ValueError: an unknown operator, or a level out of its range.
    """
    if operator not in OPERATORS:
        raise ValueError(f"operator must be one of {', '.join(OPERATORS)}, got {operator!r}")
    if not 0 <= level <= strongest(operator):
        raise ValueError(f"level must lie in [0, {strongest(operator):g}] for {operator}, got {level:g}")
    return OPERATORS[operator](weights, level, torch.Generator().manual_seed(seed))


def stack(operator: str, weights: Weights, level: float, seeds: Iterable[int]) -> dict[str, Tensor]:
    """The mutants of k seeds, as (k, ...) under each name; arguments and errors as for `mutate`."""
    drawn = [mutate(operator, weights, level, seed) for seed in seeds]
    return {name: torch.stack([each[name] for each in drawn]) for name in weights}


def level_for(rate: Callable[[float], float], goal: float, operator: str) -> float:
    """The level at which a rate, 0 at level 0 and growing with the level, is closest to a goal, by bisection.

    Args:
        rate: of a level.
        goal: the wanted rate, in (0, 1).
        operator: whose levels are searched, up to the strongest, or to 64 where there is none.

    Raises:
        ValueError: no level tried changes anything.
    """
    seen: dict[float, float] = {}
    low, high = 0.0, min(strongest(operator), 64.0)
    for step in range(STEPS):
        level = min(1.0, high) if not step else (low + high) / 2
        seen[level] = rate(level)
        low, high = (level, high) if seen[level] < goal else (low, level)
        if abs(seen[level] - goal) < 0.01:
            break
    best = min(seen, key=lambda level: abs(seen[level] - goal))
    if not seen[best]:
        raise ValueError(f"operator {operator!r} must change labels at some level, got none that does")
    return best


def strongest(operator: str) -> float:
    """The highest level: a share of everything, or no limit for `fuzz`."""
    return math.inf if operator == "fuzz" else 1.0


def _fuzz(weights: Weights, level: float, generator: torch.Generator) -> dict[str, Tensor]:
    made = dict(weights)
    for name, weight in weights.items():
        if weight.ndim > 1:
            made[name] = weight + level * weight.std(correction=0) * _normal(weight, generator)
    return made


def _gf(weights: Weights, level: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Numbers, biases too, are replaced by draws from N(mean, std^2) of their own tensor."""
    picked = _pick([w.numel() for w in weights.values()], level, generator)
    made = {}
    for (name, weight), chosen in zip(weights.items(), picked, strict=True):
        drawn = weight.mean() + weight.std(correction=0) * _normal(weight, generator)
        made[name] = torch.where(chosen.view(weight.shape).to(weight.device), drawn, weight)
    return made


def _ws(weights: Weights, level: float, generator: torch.Generator) -> dict[str, Tensor]:
    """The incoming weights of each chosen neuron change places among themselves."""
    made = dict(weights)
    for name, chosen in _neurons(weights, level, generator).items():
        rows = weights[name].flatten(1)
        order = torch.rand(rows.shape, generator=generator).argsort(1).to(rows.device)
        made[name] = torch.where(chosen.to(rows.device)[:, None], rows.gather(1, order), rows).view_as(weights[name])
    return made


def _ns(weights: Weights, level: float, generator: torch.Generator) -> dict[str, Tensor]:
    """In each layer, chosen neurons change places among themselves; their biases stay. mMutant spares layers of under 10 rows."""
    made = dict(weights)
    for name, weight in weights.items():
        if weight.ndim > 1:
            count = level * len(weight)
            chosen = torch.randperm(len(weight), generator=generator)[: math.floor(count) if count > 2 else math.ceil(count)]
            made[name] = weight.clone()
            made[name][chosen] = weight[chosen[torch.randperm(len(chosen), generator=generator)]]
    return made


def _nai(weights: Weights, level: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Chosen neurons change sign, with the bias of the same layer (mMutant's code flips whatever vector comes next)."""
    made = dict(weights)
    for name, chosen in _neurons(weights, level, generator).items():
        sign = 1 - 2 * chosen.to(weights[name])
        made[name] = weights[name] * sign.view(-1, *[1] * (weights[name].ndim - 1))
        bias = name.removesuffix("weight") + "bias"
        if bias in weights:
            made[bias] = weights[bias] * sign
    return made


OPERATORS: dict[str, Callable[[Weights, float, torch.Generator], dict[str, Tensor]]] = {
    "fuzz": _fuzz,
    "gf": _gf,
    "ws": _ws,
    "ns": _ns,
    "nai": _nai,
}


def _neurons(weights: Weights, level: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Which neurons (rows,) bool of each layer are chosen, among those of all layers."""
    layers = {name: len(weight) for name, weight in weights.items() if weight.ndim > 1}
    return dict(zip(layers, _pick(list(layers.values()), level, generator), strict=True))


def _pick(sizes: list[int], share: float, generator: torch.Generator) -> tuple[Tensor, ...]:
    """The floor of a share of all places, drawn without replacement, as one mask for each size."""
    chosen = torch.zeros(sum(sizes), dtype=torch.bool)
    chosen[torch.randperm(len(chosen), generator=generator)[: math.floor(share * len(chosen))]] = True
    parts: tuple[Tensor, ...] = chosen.split(sizes)
    return parts


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Drawn in fp32, so that a model in double precision has the same mutants."""
    return torch.randn(like.shape, generator=generator).to(like)
