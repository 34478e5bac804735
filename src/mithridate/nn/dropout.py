"""A model thinned by its own dropout, with masks that are drawn once: how far the thinned models disagree about an input.

Source: Gal and Ghahramani 2016, arXiv 1506.02142; as a sign of adversarial examples, Feinman et al. 2017, arXiv 1703.00410, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mithridate.data import to_float
from mithridate.nn.modes import device_of
from mithridate.nn.taps import Trace, trace

DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def dropouts(model: nn.Module) -> list[nn.Module]:
    """The modules of a model that drop something in training."""
    return [module for module in model.modules() if isinstance(module, DROPOUT) and module.p > 0]


@contextmanager
def thinned(model: nn.Module, seed: int) -> Iterator[None]:
    """Dropout is on although the model may be in eval mode, with the same masks, drawn from `seed`, for every input of a batch."""
    generator = torch.Generator().manual_seed(seed)

    def thin(module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        whole = args[0].shape[1:] if isinstance(module, nn.Dropout) else (args[0].shape[1], *[1] * (args[0].ndim - 2))
        mask = torch.rand(whole, generator=generator).to(args[0].device) >= module.p
        return torch.where(mask, args[0] / max(1 - module.p, 1e-6), 0.0)

    handles = [module.register_forward_hook(thin) for module in dropouts(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def log_variance(model: nn.Module, images: Tensor, seeds: Sequence[int]) -> Tensor:
    """Log (n,) of the variance of the probabilities over thinned models, added up over the classes; at least -30.

    Args:
        model: with dropout; bit-identical afterwards.
        images: (n, c, h, w), uint8 or float in [0, 1].
        seeds: one a thinned model, at least two.
    """
    parts = []
    for seed in seeds:
        with thinned(model, seed):
            parts.append(trace(model, to_float(images)).logits.softmax(1))
    return torch.stack(parts).var(0, correction=0).sum(1).clamp_min(1e-13).log()


@torch.no_grad()
def usual_variance(model: nn.Module, seen: Trace, count: int, groups: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Seeds (count,) of thinned models, and mean and standard deviation (2, groups) of `log_variance` over groups (groups, n) of inputs.

    Args:
        model: with dropout; bit-identical afterwards.
        seen: trace of n inputs.
        count: thinned models; with none, there are no seeds, and nothing is run.
        groups: bool, whom each group holds.
        seed: draws the seeds.

    Raises:
        ValueError: a count above 0 for a model without dropout.
    """
    seeds = torch.randint(2**31, (count,), generator=torch.Generator().manual_seed(seed))
    if not count:
        return seeds, torch.zeros(2, len(groups))
    if not dropouts(model):
        raise ValueError(f"uncertainty must be None for a model without dropout, got {count}")
    chosen, device = seeds.tolist(), device_of(model)
    found = torch.cat([log_variance(model, part.images, chosen).cpu() for part in seen.batches(256, device)])
    return seeds, torch.stack([torch.stack([found[rows].mean(), found[rows].std().clamp_min(1e-3)]) for rows in groups], 1)
