"""Evasion, one function for every attack: perturb, judge in full precision, and say what it took."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mithridate.nn.ascent import check_batch
from mithridate.nn.effort import metered
from mithridate.nn.modes import check_logits, evaluating
from mithridate.roles import Evasion, Goal


@dataclass(frozen=True, eq=False)
class Attacked:
    """Adversarial examples and their price.

    Attributes:
        images: (n, c, h, w) in [0, 1].
        predicted: (n,) the classes they are given, in full precision.
        fooled: (n,) bool, which reach the goal.
        linf: (n,) largest change of a pixel.
        l2: (n,) Euclidean length of the change.
        forwards: images run through the model by the attack.
        gradients: images whose gradient the attack took.
    """

    images: Tensor
    predicted: Tensor
    fooled: Tensor
    linf: Tensor
    l2: Tensor
    forwards: int
    gradients: int

    def __repr__(self) -> str:
        return f"Attacked({int(self.fooled.sum())} of {len(self.fooled)} fooled, {self.forwards} forwards, {self.gradients} gradients)"


def attack(evasion: Evasion, model: nn.Module, images: Tensor, labels: Tensor, goal: Goal = Goal(), *, seed: int = 0) -> Attacked:
    """Attack images and judge the result.

    Args:
        evasion: the attack.
        model: takes float images in [0, 1], gives logits (n, classes); bit-identical afterwards.
        images: float (n, c, h, w) in [0, 1], n > 0, on the model's device.
        labels: (n,) int64 true classes.
        goal: any wrong class, one class, or a class per image.
        seed: of the attack's random draws.

    Raises:
        ValueError: images, labels or targets that do not fit, or a model that does not return finite logits.
    """
    check_batch(images, labels, goal)
    labels, goal = labels.to(images.device), goal.to(images.device)
    with metered(model) as effort:
        made = evasion.perturb(model, images, labels, goal, seed=seed)
    with torch.no_grad(), evaluating(model):
        predicted = torch.cat([check_logits(model(part), len(part)) for part in made.split(256)]).argmax(1)
    change = (made - images).flatten(1)
    linf, l2 = change.abs().amax(1), change.norm(dim=1)
    return Attacked(made, predicted, goal.reached(predicted, labels), linf, l2, effort.forwards, effort.gradients)
