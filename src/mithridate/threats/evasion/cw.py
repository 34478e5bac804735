"""Carlini & Wagner's L2 attack: the smallest change that fools, by gradient descent without a ball.

    minimize over w:  |x' - x|^2 + c * max(0, kappa - lead(f(x')))   with   x' = (tanh(w) + 1) / 2

where the lead is how far the logits are past the boundary: best wrong logit minus the true one's, or target's minus best other one.
The tanh keeps x' in the box. Each image has its own Adam, its own constant c, found by bisection, and stops when it gets no better.
Unlike in the paper, the learning rate falls to zero, and a constant is large enough only where the descent ends among adversarial
examples, not where a first step happened to jump over the boundary. Both make the result smaller. The best wrong logit need not be
that of the nearest class: where the model's linearization at the image promises a shorter way to another one, that is tried as well.

Scope: white-box adversarial examples of differentiable models, small ones rather than many. Cost: searches * steps gradients an
image at most, twice that where another class looks nearer. Known failures: slow; too few steps leave the result larger than need be.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mithridate.checks import within
from mithridate.nn.modes import check_logits, frozen
from mithridate.roles import Goal, register
from mithridate.threats.searching.attempts import first_look
from mithridate.threats.searching.batches import in_batches
from mithridate.threats.searching.linearized import onto_nearest
from mithridate.threats.searching.losses import Case, Loss, lead, margin, rivals
from mithridate.threats.searching.tanh_descent import TanhDescent

RIVALS = 9  # wrong classes whose boundaries the linearization looks at, the likeliest first


@register(
    "evasion",
    scope=("l2", "untargeted", "targeted", "whitebox", "minimal"),
    cost="2 * searches * steps gradients per image at most, and 9 to look around",
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
        within(self, "[1, inf)", "searches", "steps", "batch_size")
        within(self, "(0, inf)", "lr", "c", "eps")
        within(self, "[0, inf)", "kappa")

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, goal: Goal = Goal(), *, seed: int = 0) -> Tensor:
        """The smallest adversarial examples found (n, c, h, w), in [0, 1]; the image itself where none was, or none within `eps`.

        Arguments and errors are those of `roles.Evasion.perturb`; `seed` has no effect.
        """

        def smallest(x: Tensor, y: Tensor, aim: Goal) -> Tensor:
            with frozen(model), torch.enable_grad():
                case, ahead = Case(y, aim.anchor(y), aim), _escape if aim.target is None else lead
                done = ahead(first_look(model, x, y, aim), case) > self.kappa
                found, left = x.clone(), (~done).nonzero().flatten()
                found[left], length = self._search(model, x[left], case[left], ahead)
                if aim.target is None and len(left):
                    found[left] = self._elsewhere(model, x[left], y[left], found[left], length)
            return found

        return in_batches(smallest, images, labels, goal, self.batch_size)

    def _search(self, model: nn.Module, x: Tensor, case: Case, ahead: Loss) -> tuple[Tensor, Tensor]:
        """The shortest of all descents (n, c, h, w) and its length (n,); the constant of each image goes its own way."""
        low, high = x.new_zeros(len(x)), x.new_full((len(x),), torch.inf)
        constant, found, shortest = torch.full_like(low, self.c), x.clone(), torch.full_like(high, self.eps or torch.inf)
        descent = TanhDescent(steps=self.steps, lr=self.lr, kappa=self.kappa, early_exit=self.early_exit)
        for _ in range(self.searches if len(x) else 0):
            made, length, settled = descent.run(model, x, case, ahead, constant)
            better = length < shortest
            found[better], shortest[better] = made[better], length[better]
            low, high = torch.where(settled, low, constant), torch.where(settled, constant, high)
            constant = torch.where(high.isfinite(), (low + high) / 2, 10 * constant)
        return found, shortest

    def _elsewhere(self, model: nn.Module, x: Tensor, labels: Tensor, found: Tensor, length: Tensor) -> Tensor:
        """The examples found (n, c, h, w) of these lengths (n,), or shorter ones of the class whose boundary looks nearest."""
        with torch.no_grad():
            others = rivals(check_logits(model(x), len(x)), labels, RIVALS)
            reached = check_logits(model(found), len(x)).argmax(1)
        cases = [Case(labels, column, Goal()) for column in others.T]
        _, promised, nearest = onto_nearest(model, x, x, cases, "l2", self.kappa)
        again = ((nearest != reached) & (promised < length)).nonzero().flatten()
        made, shorter = self._search(model, x[again], Case(labels[again], nearest[again], Goal()), lead)
        better = shorter < length[again]
        found[again[better]] = made[better]
        return found


def _escape(logits: Tensor, case: Case) -> Tensor:
    """How far (n,) the best wrong class leads."""
    return margin(logits, case.labels)
