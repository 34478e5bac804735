"""Projected gradient ascent on the images: the inner loop of PGD attacks, adversarial fine-tuning and model inspection.

Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018, section 2.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mithridate.checks import one_of, within
from mithridate.nn.modes import check_logits, fast_layout, frozen
from mithridate.roles import Goal

SIZES = 8  # batch sizes an ascent passes through at most, while images leave it: convolutions set themselves up anew for each


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How far a perturbation may go, and how it is searched.

    Attributes:
        norm: of the perturbation of one image, over all its pixels and channels.
        eps: radius, in pixel units of [0, 1].
        step: length of one step in the same units and norm; None for a quarter of `eps`.
        steps: number of gradient steps.
        random_start: begin at a random point of the ball, uniform in volume, instead of at the image.
        momentum: share of the earlier directions kept in each step, in [0, 1) (Dong et al., CVPR 2018, algorithm 1).
        loss: what is raised: cross-entropy, or the margin of the best other logit, which no confidence can flatten.
        early_exit: images that reach the goal leave the batch and stay as they are.
        fast: gradients in bf16 and channels-last, as far as the model can; the verdict is taken in full precision all the same.

    Raises:
        ValueError: a field out of its range.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float = 8 / 255
    step: float | None = None
    steps: int = 10
    random_start: bool = False
    momentum: float = 0.0
    loss: Literal["ce", "margin"] = "ce"
    early_exit: bool = False
    fast: bool = False

    def __post_init__(self) -> None:
        one_of(self, ("linf", "l2"), "norm")
        one_of(self, ("ce", "margin"), "loss")
        within(self, "(0, inf)", "eps", "step")
        within(self, "[1, inf)", "steps")
        within(self, "[0, 1)", "momentum")


@dataclass(frozen=True, eq=False)
class Ascent:
    """What an ascent found.

    Attributes:
        images: (n, c, h, w) in [0, 1] and inside the budget to 1e-6.
        fooled: (n,) bool, which of them reach the goal, in full precision.
        predicted: (n,) the classes they are given, in full precision.
        objective: (n,) the loss that was raised, at `images`, in full precision.
        gradients: images a gradient was taken of, summed over the steps.
        forwards: images run through the model, the verdict included.
    """

    images: Tensor
    fooled: Tensor
    predicted: Tensor
    objective: Tensor
    gradients: int
    forwards: int


def ascend(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    goal: Goal = Goal(),
    *,
    generator: torch.Generator | None = None,
) -> Ascent:
    """Perturb one batch of images towards a goal; the model is in eval mode meanwhile and bit-identical afterwards.

    Args:
        model: takes float images in [0, 1] and gives logits (n, classes).
        images: float (n, c, h, w) in [0, 1], on the model's device.
        labels: (n,) int64 true classes.
        budget: how far, and how it is searched.
        goal: any wrong class, one class, or a class per image.
        generator: on the CPU; needed for a random start only.

    Raises:
        ValueError: a bad argument, or a model that does not return finite logits (n, classes).
    """
    check_batch(images, labels, goal)
    if budget.random_start and generator is None:
        raise ValueError("generator must be given for a random start, got None")
    with frozen(model), torch.enable_grad():
        climber = _Climber(model, images.detach(), labels.to(images.device), budget, goal)
        layout = fast_layout(model, climber.x, bf16=True) if budget.fast else None
        climber.run(_random_start(climber.x, budget, generator) if budget.random_start else climber.x, layout)
        logits = climber.verdict()
        if layout and bool((again := climber.mistaken(logits)).any()):
            climber.run(climber.found, None, again)
            logits[again] = climber.verdict(again)
        return climber.result(logits)


class _Climber:
    """The state of one ascent: the best images so far, and what they have cost."""

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, budget: Budget, goal: Goal) -> None:
        self.model, self.x, self.budget, self.goal, self.labels = model, images, budget, goal.to(images.device), labels
        self.sign = 1.0 if goal.target is None else -1.0
        self.anchor = self.goal.anchor(labels)
        self.found = images
        self.left_early = torch.zeros_like(labels, dtype=torch.bool)
        self.gradients = self.forwards = 0

    def run(self, start: Tensor, layout: torch.memory_format | None, chosen: Tensor | None = None) -> None:
        """All steps from `start`, for the `chosen` images (n,) or for all; in bf16 where a fast layout is given."""
        active = torch.arange(len(start), device=start.device) if chosen is None else chosen.nonzero().flatten()
        self.found, most = start.clone(), len(active)
        x, center = start[active], self.x[active]
        velocity = torch.zeros_like(x)
        for _ in range(self.budget.steps):
            logits, gradient = self._gradient(x, self.anchor[active], most, layout)
            if self.budget.early_exit and bool((left := self._reached(logits, active)).any()):
                self.found[active[left]], self.left_early[active[left]] = x[left], True
                active, x, center, gradient, velocity = (rows[~left] for rows in (active, x, center, gradient, velocity))
            if not len(active):
                break
            velocity = self.budget.momentum * velocity + gradient / _spread(gradient.abs().mean((1, 2, 3)))
            x = project(x + _step(velocity, self.budget), center, self.budget)
        self.found[active] = x

    def verdict(self, chosen: Tensor | None = None) -> Tensor:
        """Logits (n, classes) of the images found, or of the `chosen` (n,) ones, in full precision."""
        found = self.found if chosen is None else self.found[chosen]
        self.forwards += len(found)
        with torch.no_grad():
            return check_logits(self.model(found), len(found))

    def mistaken(self, logits: Tensor) -> Tensor:
        """Images (n,) that left early on a bf16 verdict which full precision does not confirm."""
        return self.left_early & ~self.goal.reached(logits.argmax(1), self.labels)

    def result(self, logits: Tensor) -> Ascent:
        predicted = logits.argmax(1)
        fooled = self.goal.reached(predicted, self.labels)
        objective = self.sign * _loss(logits, self.anchor, self.budget.loss)
        return Ascent(self.found, fooled, predicted, objective, self.gradients, self.forwards)

    def _gradient(self, x: Tensor, anchor: Tensor, most: int, layout: torch.memory_format | None) -> tuple[Tensor, Tensor]:
        count, x, anchor = len(x), _filled(x, most), _filled(anchor, most)
        x = x.contiguous(memory_format=layout or torch.contiguous_format).detach().requires_grad_()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=layout is not None):
            logits = check_logits(self.model(x), len(x)).to(x.dtype)
        objective = self.sign * _loss(logits, anchor, self.budget.loss)
        self.gradients, self.forwards = self.gradients + len(x), self.forwards + len(x)
        return logits.detach()[:count], torch.autograd.grad(objective.sum(), x)[0][:count]

    def _reached(self, logits: Tensor, active: Tensor) -> Tensor:
        return self.goal[active].reached(logits.argmax(1), self.labels[active])


def _filled(rows: Tensor, most: int) -> Tensor:
    """The rows, the first one repeated until their number is an eighth of `most`, or two eighths, or more of them."""
    extra = min(-len(rows) % math.ceil(most / SIZES), most - len(rows))
    return torch.cat([rows, rows[:1].expand(extra, *rows.shape[1:])]) if extra else rows


def project(x: Tensor, center: Tensor, budget: Budget) -> Tensor:
    """The points x (n, c, h, w) pulled back into the ball around `center`, then into [0, 1], which never leaves the ball."""
    delta = x - center
    if budget.norm == "linf":
        delta = delta.clamp(-budget.eps, budget.eps)
    else:
        delta = delta * (budget.eps / _spread(delta.flatten(1).norm(dim=1))).clamp(max=1)
    return (center + delta).clamp(0, 1)


def check_batch(images: Tensor, labels: Tensor, goal: Goal = Goal()) -> None:
    """Refuse what no attack can use.

    Raises:
        ValueError: `images` are not float (n, c, h, w) in [0, 1] with n > 0, or `labels` or a per-image target do not fit them.
    """
    if images.ndim != 4 or not images.is_floating_point() or not images.numel():
        raise ValueError(f"images must be float (n, c, h, w) with n > 0, got {images.dtype} {tuple(images.shape)}")
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError(f"images must lie in [0, 1], got [{float(images.min()):g}, {float(images.max()):g}]")
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64 of shape ({len(images)},), got {labels.dtype} {tuple(labels.shape)}")
    if isinstance(goal.target, Tensor) and (goal.target.shape != labels.shape or goal.target.dtype != torch.int64):
        raise ValueError(f"target must be int64 of shape ({len(images)},), got {goal.target.dtype} {tuple(goal.target.shape)}")


def _loss(logits: Tensor, anchor: Tensor, kind: str) -> Tensor:
    """How far each prediction (n,) is from the anchor class: cross-entropy, or best other logit minus the anchor's."""
    if int(anchor.min()) < 0 or int(anchor.max()) >= logits.shape[1]:
        bad = int(anchor.max()) if int(anchor.min()) >= 0 else int(anchor.min())
        raise ValueError(f"labels and target must lie in [0, {logits.shape[1]}), got {bad}")
    if kind == "ce":
        return cross_entropy(logits, anchor, reduction="none")
    at = anchor[:, None]
    others = logits.scatter(1, at, -torch.inf).amax(1)
    return others - logits.gather(1, at)[:, 0]


def _step(direction: Tensor, budget: Budget) -> Tensor:
    length = budget.eps / 4 if budget.step is None else budget.step
    if budget.norm == "linf":
        return length * direction.sign()
    scaled = direction / _spread(direction.abs().amax((1, 2, 3)))  # before squaring, so that tiny gradients do not underflow
    return length * scaled / _spread(scaled.flatten(1).norm(dim=1))


def _random_start(images: Tensor, budget: Budget, generator: torch.Generator | None) -> Tensor:
    if budget.norm == "linf":
        delta = torch.rand(images.shape, generator=generator) * 2 - 1
    else:
        delta = torch.randn(images.shape, generator=generator)
        radius = torch.rand(len(images), generator=generator) ** (1 / images[0].numel())
        delta = delta * (radius / delta.flatten(1).norm(dim=1))[:, None, None, None]
    return project(images + budget.eps * delta.to(images), images, budget)


def _spread(values: Tensor) -> Tensor:
    """(n,) -> (n, 1, 1, 1), kept away from zero so that it can divide."""
    return values.clamp_min(torch.finfo(values.dtype).tiny)[:, None, None, None]
