"""Auto-PGD: projected gradient descent that sets its own step size, and losses that neither scale nor shift of the logits can flatten.

The step halves where the loss has stopped growing (see `threats.auto_pgd`), so that steps and radius are all there is to choose.
`loss=targeted_dlr` makes one attempt towards each of the most likely wrong classes.

Scope: white-box adversarial examples of differentiable models. Cost: restarts * steps gradients an image (times the classes
tried), less for images fooled early. Known failures: models whose gradients are masked or random; it finds no minimal perturbation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mithridate.checks import one_of, within
from mithridate.nn.ascent import Budget
from mithridate.nn.modes import frozen
from mithridate.roles import Goal, register
from mithridate.threats.searching.attempts import destinations, first_look, one_by_one
from mithridate.threats.searching.auto_pgd import Climb
from mithridate.threats.searching.batches import in_batches
from mithridate.threats.searching.losses import Case, Loss, away, dlr, targeted_dlr, towards

LOSSES: dict[str, Loss] = {"ce": away, "dlr": dlr, "targeted_dlr": targeted_dlr}


@register(
    "evasion",
    scope=("linf", "l2", "untargeted", "targeted", "whitebox"),
    cost="restarts * steps gradients per image, for targeted_dlr times n_target",
    paper="Croce & Hein, ICML 2020, arXiv 2003.01690",
)
@dataclass(frozen=True, kw_only=True)
class APGD:
    """Auto-PGD inside an L-inf or L2 ball.

    Attributes:
        norm: of the perturbation of one image, over all its pixels and channels.
        eps: radius, in pixel units of [0, 1].
        loss: cross-entropy; `dlr`, the difference of logits ratio; or `targeted_dlr`, its targeted version towards each of the
            `n_target` most likely wrong classes in turn. A targeted goal is approached by its own class's version of the loss.
            Models of few classes: see `threats.losses`.
        n_target: wrong classes tried by `targeted_dlr`; at most all there are.
        steps: gradient steps of each attempt.
        restarts: attempts, each from a random point of the ball's surface, and each on what is left to fool.
        rho: share of steps that must raise the loss for the step size to stay, in (0, 1].
        fast: losses and gradients in bf16 and channels-last; every success is confirmed in full precision.
        batch_size: images attacked at once.

    Raises:
        ValueError: a field out of its range.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float = 8 / 255
    loss: Literal["ce", "dlr", "targeted_dlr"] = "ce"
    n_target: int = 9
    steps: int = 100
    restarts: int = 1
    rho: float = 0.75
    fast: bool = False
    batch_size: int = 256

    def __post_init__(self) -> None:
        one_of(self, tuple(LOSSES), "loss")
        within(self, "[1, inf)", "n_target", "restarts", "batch_size")
        within(self, "(0, 1]", "rho")
        self._budget()

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, goal: Goal = Goal(), *, seed: int = 0) -> Tensor:
        """Adversarial examples (n, c, h, w), in [0, 1] and within `eps`; images that could not be fooled come back as they were.

        Arguments and errors are those of `roles.Evasion.perturb`; `seed` draws the random starts.
        """
        generator = torch.Generator().manual_seed(seed)

        def attack(x: Tensor, y: Tensor, aim: Goal) -> Tensor:
            climb = Climb(model, self._loss(aim), self._budget(), self.rho, generator)
            logits = first_look(model, x, y, aim)
            classes = destinations(logits, y, aim, self.n_target if self.loss == "targeted_dlr" else 1)
            cases = (Case(y, classes[:, i], aim) for i in range(classes.shape[1]) for _ in range(self.restarts))
            return one_by_one(climb, x, cases, aim.reached(logits.argmax(1), y))

        with frozen(model), torch.enable_grad():
            return in_batches(attack, images, labels, goal, self.batch_size)

    def _loss(self, goal: Goal) -> Loss:
        if goal.target is None:
            return LOSSES[self.loss]
        return towards if self.loss == "ce" else targeted_dlr

    def _budget(self) -> Budget:
        return Budget(norm=self.norm, eps=self.eps, steps=self.steps, fast=self.fast)
