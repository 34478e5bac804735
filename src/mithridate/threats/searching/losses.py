"""What gradient attacks raise: losses of logits with a case, which says for each image what to leave and what to reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mithridate.roles import Goal


@dataclass(frozen=True, eq=False)
class Case:
    """What is wanted of each image.

    Attributes:
        labels: (n,) true classes.
        targets: (n,) class each attempt runs towards: the goal's, or, of an untargeted goal, any wrong one.
        goal: what counts as success.
    """

    labels: Tensor
    targets: Tensor
    goal: Goal

    def __getitem__(self, rows: Tensor) -> Case:
        """The case of the chosen images, by index or mask."""
        return Case(self.labels[rows], self.targets[rows], self.goal[rows])

    def reached(self, logits: Tensor) -> Tensor:
        """Which predictions (n,) are a success."""
        return self.goal.reached(logits.argmax(1), self.labels)


Loss = Callable[[Tensor, Case], Tensor]
"""Logits (n, classes) and their case -> (n,), the higher the closer to success."""


def away(logits: Tensor, case: Case) -> Tensor:
    """Cross-entropy (n,) of the true class."""
    return F.cross_entropy(logits, case.labels, reduction="none")


def towards(logits: Tensor, case: Case) -> Tensor:
    """Negative cross-entropy (n,) of the target class."""
    return -F.cross_entropy(logits, case.targets, reduction="none")


def margin(logits: Tensor, anchor: Tensor) -> Tensor:
    """Best other logit minus the anchor class's (n,): positive where the anchor is not predicted."""
    at = anchor[:, None]
    return logits.scatter(1, at, -torch.inf).amax(1) - logits.gather(1, at)[:, 0]


def lead(logits: Tensor, case: Case) -> Tensor:
    """Target's logit minus (n,) the true class's or, of a targeted goal, minus the best other one: the boundary to cross is at zero."""
    if case.goal.target is not None:
        return -margin(logits, case.targets)
    return (logits.gather(1, case.targets[:, None]) - logits.gather(1, case.labels[:, None]))[:, 0]


def dlr(logits: Tensor, case: Case) -> Tensor:
    """Difference of logits ratio (n,): the margin over the gap of the best and the third logit, so that scale does not matter.

    With two classes there is no third, and it is the plain margin. Source: Croce & Hein, arXiv 2003.01690, equation 6.
    """
    top = logits.topk(min(3, logits.shape[1])).values
    return margin(logits, case.labels) / (_apart(top[:, 0] - top[:, 2]) if top.shape[1] == 3 else 1)


def targeted_dlr(logits: Tensor, case: Case) -> Tensor:
    """The lead of the target (n,) over the gap of the best logit and the mean of the third and fourth.

    With fewer than four classes the ratio can be constant, hence without gradient, and the plain lead is taken instead.
    Source: Croce & Hein, arXiv 2003.01690, equation 7.
    """
    if logits.shape[1] < 4:
        return lead(logits, case)
    top = logits.topk(4).values
    return lead(logits, case) / _apart(top[:, 0] - (top[:, 2] + top[:, 3]) / 2)


def rivals(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """The most likely wrong classes (n, at most `count`), the likeliest first."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.topk(min(count, logits.shape[1] - 1)).indices


def check_classes(logits: Tensor, labels: Tensor, goal: Goal) -> Tensor:
    """The logits, where they have every class that is spoken of.

    Raises:
        ValueError: fewer than two classes, or a label or target that is none of them.
    """
    if logits.shape[1] < 2:
        raise ValueError(f"model must know at least 2 classes, got {logits.shape[1]}")
    named = torch.cat([labels, goal.anchor(labels)])
    bad = named[(named < 0) | (named >= logits.shape[1])]
    if len(bad):
        raise ValueError(f"labels and target must lie in [0, {logits.shape[1]}), got {int(bad[0])}")
    return logits


def _apart(gap: Tensor) -> Tensor:
    """A gap (n,) that can divide."""
    return gap + 1e-12
