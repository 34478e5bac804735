"""Square attack: changes the pixels of a random square to the edge of the ball and keeps what raises the loss. It needs logits only.

The squares shrink on a fixed schedule made for 10,000 queries. In L-inf every pixel is at the radius from the start (vertical
stripes); in L2 a bump takes over the budget of another window.

Scope: black-box with scores, also where gradients are masked. Cost: `queries` forward passes an image, less for images fooled early.
Known failures: models whose logits are random or rounded, for which no query can be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mithridate.checks import one_of, within
from mithridate.nn.modes import check_logits, evaluating
from mithridate.roles import Goal, register
from mithridate.threats.searching.attempts import first_look, one_by_one
from mithridate.threats.searching.batches import in_batches
from mithridate.threats.searching.losses import Case, Loss, away, margin, towards
from mithridate.threats.searching.squares import l2_square, l2_start, linf_square, linf_start, side_of_square

SCHEDULED = 10_000  # queries the schedule is made for


@register(
    "evasion",
    scope=("linf", "l2", "untargeted", "targeted", "blackbox"),
    cost="restarts * queries forward passes per image",
    paper="Andriushchenko et al., ECCV 2020, arXiv 1912.00049",
)
@dataclass(frozen=True, kw_only=True)
class Square:
    """Square attack inside an L-inf or L2 ball, without gradients.

    Attributes:
        norm: of the perturbation of one image, over all its pixels and channels.
        eps: radius, in pixel units of [0, 1].
        queries: images asked of the model in each attempt, for each image.
        p_init: share of the image that the first squares cover, in (0, 1].
        loss: what is raised for an untargeted goal: the margin of the best wrong logit, or the cross-entropy; a targeted goal
            lowers the cross-entropy of its class.
        restarts: attempts, each on what is left to fool.
        rescale: squeeze the schedule of the squares into `queries`.
        batch_size: images attacked at once.

    Raises:
        ValueError: a field out of its range.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float = 8 / 255
    queries: int = 5000
    p_init: float = 0.8
    loss: Literal["margin", "ce"] = "margin"
    restarts: int = 1
    rescale: bool = False
    batch_size: int = 256

    def __post_init__(self) -> None:
        one_of(self, ("linf", "l2"), "norm")
        one_of(self, ("margin", "ce"), "loss")
        within(self, "(0, inf)", "eps")
        within(self, "[1, inf)", "queries", "restarts", "batch_size")
        within(self, "(0, 1]", "p_init")

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, goal: Goal = Goal(), *, seed: int = 0) -> Tensor:
        """Adversarial examples (n, c, h, w), in [0, 1] and within `eps`; images that could not be fooled come back as they were.

        Arguments and errors are those of `roles.Evasion.perturb`; `seed` draws the squares.
        """
        generator = torch.Generator().manual_seed(seed)

        def attack(x: Tensor, y: Tensor, aim: Goal) -> Tensor:
            logits = first_look(model, x, y, aim)
            cases = [Case(y, aim.anchor(y), aim)] * self.restarts
            return one_by_one(lambda images, case: self._search(model, images, case, generator), x, cases, aim.reached(logits.argmax(1), y))

        with evaluating(model), torch.no_grad():
            return in_batches(attack, images, labels, goal, self.batch_size)

    def _search(self, model: nn.Module, images: Tensor, case: Case, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The best images, and which of them (n,) are a success."""
        loss = self._loss(case.goal)
        start, propose = (linf_start, linf_square) if self.norm == "linf" else (l2_start, l2_square)
        best = start(images, self.eps, generator)
        logits = check_logits(model(best), len(best))
        score, fooled = loss(logits, case), case.reached(logits)
        for query in range(self.queries - 1):
            rows = (~fooled).nonzero().flatten()
            if not len(rows):
                break
            made = propose(images[rows], best[rows], self.eps, self._side(query, images), generator)
            logits = check_logits(model(made), len(made))
            reached, new = case[rows].reached(logits), loss(logits, case[rows])
            better = reached | (new > score[rows])
            won = rows[better]
            best[won], score[won], fooled[rows] = made[better], new[better], reached
        return best, fooled

    def _side(self, query: int, images: Tensor) -> int:
        on_schedule = query * SCHEDULED / self.queries if self.rescale else query
        return side_of_square(on_schedule, self.p_init, images.shape[2], images.shape[3])

    def _loss(self, goal: Goal) -> Loss:
        if goal.target is not None:
            return towards
        return away if self.loss == "ce" else lambda logits, case: margin(logits, case.labels)
