"""The ascent of APGD: momentum, and a step that halves by itself where the loss stops growing.

    z  <- P(x + step * direction(gradient at x))
    x' <- P(x + 0.75 (z - x) + 0.25 (x - previous x))

The step starts at twice the radius. At each checkpoint it is halved, and the search goes back to its best point, where the
loss grew in less than a share `rho` of the steps since the last checkpoint, or where neither step nor best loss have changed.
Source: Croce & Hein, ICML 2020, arXiv 2003.01690, algorithm 1 and section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from mithridate.nn.ascent import Budget, project
from mithridate.nn.modes import check_logits, fast_layout
from mithridate.threats.searching.balls import random_direction, unit
from mithridate.threats.searching.losses import Case, Loss

MOMENTUM = 0.75  # share of the new step, section 3.1


@dataclass
class _Search:
    """What one ascent remembers of each image (n, ...)."""

    rows: Tensor
    center: Tensor
    x: Tensor
    previous: Tensor
    gradient: Tensor
    loss: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    step: Tensor
    rises: Tensor
    checked: Tensor
    halved: Tensor
    layout: torch.memory_format | None  # of the images in bf16; None for full precision

    def keep(self, rows: Tensor) -> None:
        """Forget all other images."""
        for name in (field.name for field in fields(self) if field.name != "layout"):
            setattr(self, name, getattr(self, name)[rows])


def checkpoints(steps: int) -> dict[int, int]:
    """The steps after which the step size is judged, and how many steps each of them judges.

    The first after 22 % of the steps, then ever closer by 3 %, but at least 6 % apart.
    """
    period, done, marks = max(int(0.22 * steps), 1), 0, {}
    while done + period <= steps:
        done += period
        marks[done] = period
        period = max(period - max(int(0.03 * steps), 1), int(0.06 * steps), 1)
    return marks


@dataclass(frozen=True, eq=False)
class Climb:
    """One APGD run.

    Attributes:
        model: frozen, takes float images in [0, 1] and gives logits (n, classes).
        loss: what is raised.
        budget: its norm, radius and number of steps, and whether gradients are taken fast, in bf16 and channels-last.
        rho: share of steps that must raise the loss, in (0, 1].
        generator: on the CPU, of the random start.
    """

    model: nn.Module
    loss: Loss
    budget: Budget
    rho: float
    generator: torch.Generator

    def __call__(self, images: Tensor, case: Case) -> tuple[Tensor, Tensor]:
        """Perturbed images, and which of them (n,) are a success; those leave the batch at once, so that only they are worth keeping."""
        found, fooled = images.clone(), torch.zeros_like(case.labels, dtype=torch.bool)
        marks, search = checkpoints(self.budget.steps), self._begin(images)
        for done in range(self.budget.steps + 1):
            if done:
                self._move(search, MOMENTUM if done > 1 else 1.0)
            reached = self._confirmed(search.x, case[search.rows], self._look(search, case[search.rows]))
            won = search.rows[reached]
            found[won], fooled[won] = search.x[reached], True
            if bool(reached.any()):
                search.keep(~reached)
            if not len(search.rows):
                break
            if done in marks:
                self._judge(search, marks[done])
        if self.budget.fast and len(search.rows):
            reached = self._confirmed(search.best, case[search.rows], torch.ones_like(search.halved))
            found[search.rows[reached]], fooled[search.rows[reached]] = search.best[reached], True
        return found, fooled

    def _begin(self, images: Tensor) -> _Search:
        """At a random point on the surface of the ball."""
        start = images + self.budget.eps * random_direction(images, self.budget.norm, self.generator)
        x = project(start, images, self.budget)
        nothing = torch.zeros_like(images[:, 0, 0, 0])
        step = torch.full_like(nothing, 2 * self.budget.eps)[:, None, None, None]
        lowest = torch.full_like(nothing, -torch.inf)
        halved = torch.ones_like(nothing, dtype=torch.bool)
        return _Search(
            rows=torch.arange(len(images), device=images.device),
            center=images,
            x=x,
            previous=x,
            gradient=x,
            loss=lowest.neg(),  # so that the first look is no rise
            best=x,
            best_gradient=x,
            best_loss=lowest,
            step=step,
            rises=nothing,
            checked=lowest,
            halved=halved,
            layout=fast_layout(self.model, images, bf16=True) if self.budget.fast else None,
        )

    def _move(self, search: _Search, momentum: float) -> None:
        direction = search.gradient.sign() if self.budget.norm == "linf" else unit(search.gradient, "l2")
        ahead = project(search.x + search.step * direction, search.center, self.budget)
        drift = momentum * (ahead - search.x) + (1 - momentum) * (search.x - search.previous)
        search.previous, search.x = search.x, project(search.x + drift, search.center, self.budget)

    def _look(self, search: _Search, case: Case) -> Tensor:
        """Loss and gradient where the search is now; which images (n,) are a success."""
        x = search.x.detach().contiguous(memory_format=search.layout or torch.contiguous_format).requires_grad_()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=search.layout is not None):
            logits = check_logits(self.model(x), len(x)).to(x.dtype)
        loss = self.loss(logits, case)
        search.gradient, loss = torch.autograd.grad(loss.sum(), x)[0], loss.detach()
        search.rises, search.loss = search.rises + (loss > search.loss), loss
        better = loss > search.best_loss
        search.best_loss = torch.where(better, loss, search.best_loss)
        better = better[:, None, None, None]
        search.best = torch.where(better, search.x, search.best)
        search.best_gradient = torch.where(better, search.gradient, search.best_gradient)
        return case.reached(logits.detach())

    def _confirmed(self, x: Tensor, case: Case, reached: Tensor) -> Tensor:
        """Which of the successes (n,) are ones in full precision."""
        if not self.budget.fast or not bool(reached.any()):
            return reached
        with torch.no_grad():
            logits = check_logits(self.model(x[reached]), int(reached.sum()))
        return reached.masked_scatter(reached, case[reached].reached(logits))

    def _judge(self, search: _Search, period: int) -> None:
        stalled = ~search.halved & (search.checked >= search.best_loss)
        search.halved = (search.rises <= self.rho * period) | stalled
        search.checked, search.rises = search.best_loss, torch.zeros_like(search.rises)
        back = search.halved[:, None, None, None]
        search.step = torch.where(back, search.step / 2, search.step)
        search.x = torch.where(back, search.best, search.x)
        search.gradient = torch.where(back, search.best_gradient, search.gradient)
