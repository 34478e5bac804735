"""DeepFool: to the nearest boundary of the linearized model, again and again until it is crossed.

    x_0 = x,   r_i = the shortest way onto the nearest plane  lead_k(x_i) + grad lead_k(x_i) r = 0,   x_{i+1} = x + (1 + overshoot) sum r

over the likeliest wrong classes k, or towards the one target. In L2 the way is along the gradient, in L-inf along its sign. Where the
paper clips to [0, 1] afterwards, the way here is the shortest one inside the box, so that pixels at 0 or 1 cost no steps.

Scope: white-box adversarial examples of differentiable models, small ones. Cost: candidates - 1 gradients an image and step, 2 to 5
steps as a rule. Known failures: boundaries that bend away (`cw` and `fab` go on where it stops), gradient masking.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mithridate.checks import one_of, within
from mithridate.nn.modes import check_logits, frozen
from mithridate.roles import Goal, register
from mithridate.threats.searching.attempts import destinations, first_look
from mithridate.threats.searching.balls import lengths
from mithridate.threats.searching.batches import in_batches
from mithridate.threats.searching.linearized import onto_nearest
from mithridate.threats.searching.losses import Case


@register(
    "evasion",
    scope=("linf", "l2", "untargeted", "targeted", "whitebox", "minimal"),
    cost="steps * (candidates - 1) gradients per image at most",
    paper="Moosavi-Dezfooli et al., CVPR 2016, arXiv 1511.04599, algorithm 2 and section 3.4",
)
@dataclass(frozen=True, kw_only=True)
class DeepFool:
    """Small changes in L2 or L-inf, by stepping onto the nearest boundary of the linearized model.

    Attributes:
        norm: of the change that is kept small.
        steps: linearizations at most; an image that is fooled leaves.
        candidates: classes looked at, the true one included, the likeliest first.
        overshoot: share by which the way is made longer, to come out behind the boundary.
        eps: longest change that is of use, in pixel units of [0, 1]; None for any.
        batch_size: images attacked at once.

    Raises:
        ValueError: a field out of its range.
    """

    norm: Literal["linf", "l2"] = "l2"
    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02
    eps: float | None = None
    batch_size: int = 256

    def __post_init__(self) -> None:
        one_of(self, ("linf", "l2"), "norm")
        within(self, "[1, inf)", "steps", "batch_size")
        within(self, "[2, inf)", "candidates")
        within(self, "[0, inf)", "overshoot")
        within(self, "(0, inf)", "eps")

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, goal: Goal = Goal(), *, seed: int = 0) -> Tensor:
        """Adversarial examples (n, c, h, w) in [0, 1]; the image itself where none was found, or none within `eps`.

        Arguments and errors are those of `roles.Evasion.perturb`; `seed` has no effect.
        """

        def nearest(x: Tensor, y: Tensor, aim: Goal) -> Tensor:
            with frozen(model):
                return self._walk(model, x, y, aim)

        return in_batches(nearest, images, labels, goal, self.batch_size)

    def _walk(self, model: nn.Module, images: Tensor, labels: Tensor, goal: Goal) -> Tensor:
        logits = first_look(model, images, labels, goal)
        towards, way = destinations(logits, labels, goal, self.candidates - 1), torch.zeros_like(images)
        made, found = images.clone(), images.clone()
        active = (~goal.reached(logits.argmax(1), labels)).nonzero().flatten()
        for _ in range(self.steps):
            if not len(active):
                break
            cases = [Case(labels[active], column, goal[active]) for column in towards[active].T]
            way[active] += onto_nearest(model, made[active], (images + way)[active].clamp(0, 1), cases, self.norm)[0]
            made[active] = (images[active] + (1 + self.overshoot) * way[active]).clamp(0, 1)
            with torch.no_grad():
                reached = goal[active].reached(check_logits(model(made[active]), len(active)).argmax(1), labels[active])
            found[active[reached]] = made[active[reached]]
            active = active[~reached]
        too_far = lengths(found - images, self.norm) > (self.eps or math.inf)
        return torch.where(too_far[:, None, None, None], images, found)
