"""Carlini & Wagner's L2 attack: the smallest change that fools, by gradient descent without a ball.

    minimize over w:  |x' - x|^2 + c * max(0, kappa - lead(f(x')))   with   x' = (tanh(w) + 1) / 2

where the lead is how far the logits are past the boundary: best wrong logit minus the true one's, or target's minus best other one.
The tanh keeps x' in the box. Each image has its own Adam, its own constant c, found by bisection, and stops when it gets no better.
Unlike in the paper, the learning rate falls to zero, and a constant is large enough only where the descent ends among adversarial
examples, not where a first step happened to jump over the boundary. Both make the result smaller.

Scope: white-box adversarial examples of differentiable models, small ones rather than many. Cost: searches * steps gradients an
image at most. Known failures: slow; too few steps leave the result larger than need be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mithridate.nn.modes import check_logits, frozen
from mithridate.roles import Goal, register
from mithridate.threats.attempts import first_look
from mithridate.threats.batches import in_batches
from mithridate.threats.losses import margin

BETAS = 0.9, 0.999  # Adam's, as everywhere


@register(
    "evasion",
    scope=("l2", "untargeted", "targeted", "whitebox", "minimal"),
    cost="searches * steps gradients per image at most",
    paper="Carlini & Wagner, S&P 2017, arXiv 1608.04644, sections V and VI.A",
)
@dataclass(frozen=True, kw_only=True)
class CW:
    """The smallest change in L2, by Adam in tanh space and a search for each image's own constant.

    Attributes:
        searches: values of the constant tried for each image.
        steps: Adam's steps for each of them.
        lr: Adam's learning rate at the start, in tanh space; it falls linearly to zero.
        c: first value of the constant; ten times as much while it fails, halfway back where it succeeds.
        kappa: lead in logits that counts as fooled.
        early_exit: an image's descent ends when a tenth of the steps made it no better.
        eps: longest change in L2 that is of use, in pixel units of [0, 1]; None for any.
        batch_size: images attacked at once.

    Raises:
        ValueError: a field out of its range.
    """

    searches: int = 9
    steps: int = 200
    lr: float = 0.01
    c: float = 1e-3
    kappa: float = 0.0
    early_exit: bool = True
    eps: float | None = None
    batch_size: int = 256

    def __post_init__(self) -> None:
        for name in ("searches", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "c", "eps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {value}")
        if not 0 <= self.kappa < math.inf:
            raise ValueError(f"kappa must be at least 0 and finite, got {self.kappa}")

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, goal: Goal = Goal(), *, seed: int = 0) -> Tensor:
        """The smallest adversarial examples found (n, c, h, w), in [0, 1]; the image itself where none was, or none within `eps`.

        Args:
            model: takes float images in [0, 1] and gives logits (n, classes); bit-identical afterwards.
            images: float (n, c, h, w) in [0, 1], on the model's device.
            labels: (n,) int64 true classes.
            goal: any wrong class, one class, or a class per image.
            seed: not used; the attack draws nothing.

        Raises:
            ValueError: images, labels or targets that do not fit, or a model that does not return finite logits.
        """

        def smallest(x: Tensor, y: Tensor, aim: Goal) -> Tensor:
            with frozen(model), torch.enable_grad():
                done = self._lead(first_look(model, x, y, aim), y, aim) > self.kappa
                found, left = x.clone(), (~done).nonzero().flatten()
                found[left] = self._search(model, x[left], y[left], aim[left])
            return found

        return in_batches(smallest, images, labels, goal, self.batch_size)

    def _search(self, model: nn.Module, x: Tensor, labels: Tensor, goal: Goal) -> Tensor:
        """The shortest of all searches; the constant of each image goes its own way."""
        low, high = x.new_zeros(len(x)), x.new_full((len(x),), torch.inf)
        constant, found, shortest = torch.full_like(low, self.c), x.clone(), torch.full_like(high, self.eps or torch.inf)
        for _ in range(self.searches if len(x) else 0):
            made, length, settled = self._descend(model, x, labels, goal, constant)
            better = length < shortest
            found[better], shortest[better] = made[better], length[better]
            low, high = torch.where(settled, low, constant), torch.where(settled, constant, high)
            constant = torch.where(high.isfinite(), (low + high) / 2, 10 * constant)
        return found

    def _descend(self, model: nn.Module, x: Tensor, labels: Tensor, goal: Goal, constant: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The shortest success (n, c, h, w) on the way down, its length (n,) or infinity, and whether (n,) the descent settled there.

        Near a boundary the first steps can jump over it under any constant, which says nothing about the constant.
        """
        found, shortest, settled = x.clone(), x.new_full((len(x),), torch.inf), torch.zeros_like(labels, dtype=torch.bool)
        active, w = torch.arange(len(x), device=x.device), torch.atanh((2 * x - 1) * (1 - 1e-6))
        mean, square = torch.zeros_like(w), torch.zeros_like(w)
        tenth, total, before = max(self.steps // 10, 1), torch.zeros_like(shortest), torch.full_like(shortest, torch.inf)
        for step in range(1, self.steps + 1):
            lead, length, value, slope, made = self._value(model, w, x[active], labels[active], goal[active], constant[active])
            fooled, total = lead > self.kappa, total + value
            better = fooled & (length < shortest[active])
            found[active[better]], shortest[active[better]] = made[better], length[better]
            settled[active] = fooled if step % tenth == 1 % tenth else settled[active] | fooled
            mean, square = BETAS[0] * mean + (1 - BETAS[0]) * slope, BETAS[1] * square + (1 - BETAS[1]) * slope.square()
            rate = self.lr * (1 - (step - 1) / self.steps)
            w = w - rate * (mean / (1 - BETAS[0] ** step)) / ((square / (1 - BETAS[1] ** step)).sqrt() + 1e-8)
            if self.early_exit and step % tenth == 0:
                keep = total < 0.9999 * before
                active, w, mean, square, before = active[keep], w[keep], mean[keep], square[keep], total[keep]
                total = torch.zeros_like(before)
            if not len(active):
                break
        return found, shortest, settled

    def _value(self, model: nn.Module, w: Tensor, x: Tensor, labels: Tensor, goal: Goal, constant: Tensor) -> tuple[Tensor, ...]:
        """Lead, length and value (n,) of the images at w, the value's slope in w, and the images (n, c, h, w) themselves."""
        w = w.detach().requires_grad_()
        made = (w.tanh() + 1) / 2
        lead = self._lead(check_logits(model(made), len(made)), labels, goal)
        squared = (made - x).square().sum((1, 2, 3))
        value = squared + constant * (self.kappa - lead).clamp_min(0)
        (slope,) = torch.autograd.grad(value.sum(), w)
        return lead.detach(), squared.detach().sqrt(), value.detach(), slope, made.detach()

    @staticmethod
    def _lead(logits: Tensor, labels: Tensor, goal: Goal) -> Tensor:
        """How far (n,) the logits are past the boundary that the goal wants crossed."""
        ahead = margin(logits, goal.anchor(labels))
        return ahead if goal.target is None else -ahead
