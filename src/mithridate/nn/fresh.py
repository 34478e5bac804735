"""A model's architecture without what it has learned."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mithridate.nn.modes import clone, device_of


def fresh(model: nn.Module, seed: int) -> nn.Module:
    """A copy with weights as before any training, drawn from a seed; the given model and the global generators are left as they were.

    Modules draw their own weights anew (`reset_parameters`). Weights of modules that cannot keep their values in another order:
    their size is what such a module was made for, and nothing that was learned is left.

    Args:
        model: any; buffers of modules that cannot reset themselves, such as a normalization's, are kept.
        seed: of all draws.
    """
    twin, device = clone(model), device_of(model)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(seed)
        for module in twin.modules():
            reset: Any = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                continue
            for parameter in module.parameters(recurse=False):
                order = torch.randperm(parameter.numel(), device=device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return twin
