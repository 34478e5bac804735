"""The nearest boundary of a model, as its linearization has it: one gradient for each class that is looked at.

Source: Moosavi-Dezfooli et al., CVPR 2016, arXiv 1511.04599, section 3.2, equation 8.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mithridate.nn.modes import check_logits
from mithridate.threats.searching.balls import lengths
from mithridate.threats.searching.hyperplane import onto_plane
from mithridate.threats.searching.losses import Case, lead


@torch.enable_grad()
def onto_nearest(
    model: nn.Module, made: Tensor, base: Tensor, cases: Sequence[Case], norm: str, beyond: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """The shortest step (n, c, h, w) that leads to a boundary, its length (n,), and the class (n,) behind that boundary.

    Where the box forbids all of them, it is the step that gains most for the first case, and the length is infinite.

    Args:
        model: frozen, takes float images in [0, 1] and gives logits (n, classes).
        made: (n, c, h, w) in [0, 1], where the model is linearized.
        base: (n, c, h, w) in [0, 1], where the linearization's value at `made` is taken to hold and the step begins.
        cases: one a boundary, each of all n images.
        norm: `linf` or `l2`.
        beyond: lead in logits to reach.

    Raises:
        ValueError: a model that does not return finite logits.
    """
    made = made.detach().requires_grad_()
    logits = check_logits(model(made), len(made))
    blur = 8 * torch.finfo(logits.dtype).eps * logits.detach().abs().amax(1)  # on the boundary itself, rounding would decide
    step, shortest, towards = torch.zeros_like(base), base.new_full((len(base),), torch.inf), cases[0].targets.clone()
    for index, case in enumerate(cases):
        ahead = lead(logits, case)
        (slope,) = torch.autograd.grad(ahead.sum(), made, retain_graph=index < len(cases) - 1)
        gap = blur + beyond - ahead.detach()
        way = onto_plane(base, slope, gap, norm)
        length = torch.where((slope * way).sum((1, 2, 3)) > 0.99 * gap, lengths(way, norm), torch.inf)
        better = length < shortest if index else torch.ones_like(length, dtype=torch.bool)
        step[better], shortest[better], towards[better] = way[better], length[better], case.targets[better]
    return step, shortest, towards
