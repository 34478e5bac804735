"""Fast Adaptive Boundary: walks along the decision boundary towards the point of it that is nearest to the image.

The boundary towards a class is taken as flat around the current point. A step goes to a mixture of the points of that plane that are
nearest to the current point and to the image; past the boundary, the point is pulled back towards the image. The targeted version
(FAB-T) does so for each of the `n_target` most likely wrong classes, at one gradient a step instead of one a class.

Scope: white-box, smallest perturbations in L-inf or L2. Cost: restarts * n_target * steps gradients an image, less for images
fooled within `eps`. Known failures: models whose gradients are masked, since the plane is then wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mithridate.checks import one_of, within
from mithridate.nn.modes import frozen
from mithridate.roles import Goal, register
from mithridate.threats.searching.attempts import destinations, first_look
from mithridate.threats.searching.batches import in_batches
from mithridate.threats.searching.boundary import Walk
from mithridate.threats.searching.losses import Case


@register(
    "evasion",
    scope=("linf", "l2", "untargeted", "targeted", "whitebox", "minimal"),
    cost="restarts * n_target * steps gradients per image",
    paper="Croce & Hein, ICML 2020, arXiv 1907.02044",
)
@dataclass(frozen=True, kw_only=True)
class FAB:
    """Fast Adaptive Boundary attack, targeted version (FAB-T): the smallest perturbation that it can find.

    Attributes:
        norm: which is to be small, of the perturbation of one image over all its pixels and channels.
        eps: a perturbation of this size will do, and none larger counts; None to look for the smallest through all steps.
        n_target: most likely wrong classes tried in turn for an untargeted goal; at most all there are.
        steps: of each attempt.
        restarts: attempts at each class; all but the first start at a random point.
        alpha_max: largest share of the image's own nearest point in a step, in (0, 1].
        eta: overshoot past the plane, at least 1.
        beta: share of the way kept when pulled back towards the image, in (0, 1).
        batch_size: images attacked at once.

    Raises:
        ValueError: a field out of its range.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float | None = None
    n_target: int = 9
    steps: int = 100
    restarts: int = 1
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    batch_size: int = 256

    def __post_init__(self) -> None:
        one_of(self, ("linf", "l2"), "norm")
        within(self, "(0, inf)", "eps")
        within(self, "[1, inf)", "n_target", "steps", "restarts", "eta", "batch_size")
        within(self, "(0, 1]", "alpha_max")
        within(self, "(0, 1)", "beta")

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, goal: Goal = Goal(), *, seed: int = 0) -> Tensor:
        """Adversarial examples (n, c, h, w), in [0, 1] and within `eps`; images that could not be fooled come back as they were.

        Arguments and errors are those of `roles.Evasion.perturb`; `seed` draws the random starts.
        """
        generator = torch.Generator().manual_seed(seed)

        def attack(x: Tensor, y: Tensor, aim: Goal) -> Tensor:
            logits = first_look(model, x, y, aim)
            walk = Walk(model, x, self.norm, self.eps, self.alpha_max, self.eta, self.beta)
            walk.wanted &= ~aim.reached(logits.argmax(1), y)
            for targets in destinations(logits, y, aim, self.n_target).T:
                for attempt in range(self.restarts):
                    walk.run(Case(y, targets, aim), self.steps, generator if attempt else None)
            return walk.result()

        with frozen(model), torch.enable_grad():
            return in_batches(attack, images, labels, goal, self.batch_size)
