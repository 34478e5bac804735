"""Evasion in batches of bounded size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mithridate.nn.ascent import check_batch
from mithridate.roles import Goal

Attack = Callable[[Tensor, Tensor, Goal], Tensor]  # images, labels and goal of one batch -> perturbed images


def in_batches(attack: Attack, images: Tensor, labels: Tensor, goal: Goal, size: int) -> Tensor:
    """Attack any number of images, at most `size` at once.

    Args:
        attack: called on each batch, in order, with everything on the images' device.
        images: float (n, c, h, w) in [0, 1], n > 0.
        labels: (n,) int64 true classes.
        goal: any wrong class, one class, or a class per image.
        size: images at once.

    Raises:
        ValueError: images, labels or targets that do not fit.
    """
    check_batch(images, labels, goal)
    images, labels, goal = images.detach(), labels.to(images.device), goal.to(images.device)
    return piecewise(attack, images, labels, goal, size)


def piecewise(look: Attack, images: Tensor, labels: Tensor, goal: Goal, size: int) -> Tensor:
    """What `look` gives for at most `size` images at once, joined; nothing is checked."""
    parts = [slice(start, start + size) for start in range(0, len(images), size)]
    return torch.cat([look(images[part], labels[part], goal[part]) for part in parts])
