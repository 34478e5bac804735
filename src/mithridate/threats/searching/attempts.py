"""Attempt after attempt, each on the images that no earlier one has fooled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from mithridate.nn.modes import check_logits, evaluating
from mithridate.roles import Goal
from mithridate.threats.searching.batches import piecewise
from mithridate.threats.searching.losses import Case, check_classes, rivals


class Attempt(Protocol):
    """One run of an attack."""

    def __call__(self, images: Tensor, case: Case) -> tuple[Tensor, Tensor]:
        """Images and their case -> perturbed images, and which of them (n,) are a success."""
        ...


@torch.no_grad()
def first_look(model: nn.Module, images: Tensor, labels: Tensor, goal: Goal) -> Tensor:
    """Logits (n, classes) of the images as they are.

    Raises:
        ValueError: a model that does not return finite logits, or labels or targets that are none of its classes.
    """
    return check_classes(check_logits(model(images), len(images)), labels, goal)


def reaching(model: nn.Module, images: Tensor, labels: Tensor, goal: Goal, size: int) -> Tensor:
    """Which of the images (n,) reach the goal as they are, at most `size` looked at at once; the model is in eval mode meanwhile.

    Raises:
        ValueError: as `first_look` does.
    """

    def look(x: Tensor, y: Tensor, aim: Goal) -> Tensor:
        return aim.reached(first_look(model, x, y, aim).argmax(1), y)

    with evaluating(model):
        return piecewise(look, images, labels, goal, size)


def destinations(logits: Tensor, labels: Tensor, goal: Goal, count: int) -> Tensor:
    """Classes (n, k) to run towards, one attempt each: the goal's, or the `count` most likely wrong ones."""
    return rivals(logits, labels, count) if goal.target is None else goal.anchor(labels)[:, None]


def one_by_one(attempt: Attempt, images: Tensor, cases: Iterable[Case], reached: Tensor) -> Tensor:
    """The images (n, c, h, w), each as the first successful attempt left it; those that none fooled come back as they were.

    Args:
        attempt: called on the images that are left.
        images: float (n, c, h, w).
        cases: one an attempt, each of all n images.
        reached: (n,) bool, images that need no attempt.
    """
    found, left = images.clone(), (~reached).nonzero().flatten()
    for case in cases:
        if not len(left):
            break
        made, fooled = attempt(images[left], case[left])
        found[left[fooled]] = made[fooled]
        left = left[~fooled]
    return found
