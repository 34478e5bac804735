"""Gradient descent to short changes that fool, in a space where every point is an image.

    minimize over w:  |x' - x|^2 + constant * max(0, kappa - lead(f(x')))   with   x' = (tanh(w) + 1) / 2

Each image has its own Adam, which begins at the image itself. Source: Carlini & Wagner, S&P 2017, arXiv 1608.04644, sections V and
VI.A. Unlike there, the learning rate falls to zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mithridate.nn.modes import check_logits
from mithridate.threats.searching.losses import Case, Loss

BETAS = 0.9, 0.999  # Adam's, as everywhere


@dataclass(frozen=True, kw_only=True)
class TanhDescent:
    """How an image goes down.

    Attributes:
        steps: Adam's steps.
        lr: Adam's learning rate at the start; it falls linearly to zero.
        kappa: lead in logits that counts as a success.
        early_exit: an image's descent ends when a tenth of the steps made it no better.
    """

    steps: int
    lr: float
    kappa: float
    early_exit: bool

    def run(self, model: nn.Module, x: Tensor, case: Case, lead: Loss, constant: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The shortest success (n, c, h, w) on the way down, its length (n,) or infinity, and whether (n,) the descent settled there.

        Near a boundary the first steps can jump over it under any constant, which says nothing about the constant.

        Args:
            model: frozen, takes float images in [0, 1] and gives logits (n, classes).
            x: (n, c, h, w) in [0, 1].
            case: what is wanted of each image.
            lead: how far the logits are past the boundary to cross.
            constant: (n,) what a missing lead weighs.

        Raises:
            ValueError: a model that does not return finite logits.
        """
        found, shortest, settled = x.clone(), x.new_full((len(x),), torch.inf), torch.zeros_like(case.labels, dtype=torch.bool)
        active, w = torch.arange(len(x), device=x.device), torch.atanh((2 * x - 1) * (1 - 1e-6))
        mean, square = torch.zeros_like(w), torch.zeros_like(w)
        tenth, total, before = max(self.steps // 10, 1), torch.zeros_like(shortest), torch.full_like(shortest, torch.inf)
        for step in range(1, self.steps + 1):
            ahead, length, value, slope, made = self._value(model, w, x[active], case[active], lead, constant[active])
            fooled, total = ahead > self.kappa, total + value
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

    def _value(self, model: nn.Module, w: Tensor, x: Tensor, case: Case, lead: Loss, constant: Tensor) -> tuple[Tensor, ...]:
        """Lead, length and value (n,) of the images at w, the value's slope in w, and the images (n, c, h, w) themselves."""
        w = w.detach().requires_grad_()
        made = (w.tanh() + 1) / 2
        ahead = lead(check_logits(model(made), len(made)), case)
        squared = (made - x).square().sum((1, 2, 3))
        value = squared + constant * (self.kappa - ahead).clamp_min(0)
        (slope,) = torch.autograd.grad(value.sum(), w)
        return ahead.detach(), squared.detach().sqrt(), value.detach(), slope, made.detach()
