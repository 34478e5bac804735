"""A candidate against a watched model, at a glance: what it achieves, the way to the goal and the way out of sight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mithridate.nn.guarded import Guarded
from mithridate.roles import Goal
from mithridate.threats.searching.losses import check_classes, margin, rivals

REST, FOOLED, UNSEEN = range(3)  # ranks of a candidate: fooled and undetected is best


@dataclass(frozen=True, eq=False)
class Found:
    """Candidates (n, c, h, w): what each achieves, and where to go from it.

    Attributes:
        rank: (n,) REST, FOOLED or UNSEEN, in every draw.
        detected: (n,) bool, in any draw.
        merit: (n,) which of two candidates of a rank is better: the margin, and once fooled, the negative excess.
        leave: (n, c, h, w) gradient towards the goal.
        hide: (n, c, h, w) gradient away from the detectors.
    """

    rank: Tensor
    detected: Tensor
    merit: Tensor
    leave: Tensor
    hide: Tensor


def consider(guarded: Guarded, x: Tensor, labels: Tensor, goal: Goal, draws: int = 1) -> Found:
    """Judge candidates and take both gradients, summed over the draws of a randomized model or scorer.

    Args:
        guarded: the model and its detectors, in eval mode.
        x: float images (n, c, h, w) in [0, 1].
        labels: (n,) int64 true classes.
        goal: any wrong class, one class, or a class per image.
        draws: how often model and scorers are asked.

    Raises:
        ValueError: labels or targets outside the classes, or a model that does not return finite logits.
    """
    x = x.detach().requires_grad_()
    rank, merit = torch.full_like(labels, UNSEEN), x.new_zeros(len(x))
    leave, hide, detected = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(labels, dtype=torch.bool)
    for _ in range(draws):
        seen = guarded.look(x)
        logits, anchor = check_classes(seen.logits, labels, goal), goal.anchor(labels)
        untargeted = goal.target is None
        ahead = margin(logits, anchor) * (1 if untargeted else -1)
        towards = rivals(logits, labels, 1)[:, 0] if untargeted else anchor
        excess = guarded.excess(seen).detach()
        fooled = goal.reached(logits.argmax(1), labels)
        detected |= excess > 0
        rank = torch.minimum(rank, fooled.long() + (fooled & (excess <= 0)).long())
        merit += torch.where(fooled, -excess, ahead.detach())
        loss = cross_entropy(logits, anchor, reduction="none") * (1 if untargeted else -1)
        climb = loss + 1e-6 * ahead  # the margin leads on where confidence leaves cross-entropy no gradient
        leave += torch.autograd.grad(climb.sum(), x, retain_graph=len(guarded.scorers) > 0)[0]
        if len(guarded.scorers):
            hide -= torch.autograd.grad(guarded.lure(seen, towards).sum(), x)[0]
    return Found(rank, detected, merit, leave, hide)
