"""The walk of FAB along a decision boundary, towards its point nearest to the image.

Source: Croce & Hein, ICML 2020, arXiv 1907.02044, algorithm 1, without its final search; targeted as in arXiv 2003.01690.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mithridate.nn.modes import check_logits
from mithridate.threats.searching.balls import lengths, random_direction
from mithridate.threats.searching.hyperplane import onto_plane
from mithridate.threats.searching.losses import Case, lead

FAR = {"linf": 0.3, "l2": 1.0}  # how far random starts may go as long as nothing is found and no radius is given


@dataclass(eq=False)
class Walk:
    """The smallest adversarial changes of one batch found so far.

    Attributes:
        model: frozen, takes float images in [0, 1] and gives logits (n, classes).
        images: (n, c, h, w) in [0, 1].
        norm: `linf` or `l2`.
        eps: size that will do, or None to look for the smallest.
        alpha_max: largest share of the image's own nearest point in a step.
        eta: overshoot past the plane.
        beta: share of the way kept when pulled back towards the image.
        found: (n, c, h, w) the best so far.
        size: (n,) their distance from the images; infinite where nothing is found.
        wanted: (n,) bool, images that are still worth an attempt.
    """

    model: nn.Module
    images: Tensor
    norm: str
    eps: float | None
    alpha_max: float
    eta: float
    beta: float
    found: Tensor = field(init=False)
    size: Tensor = field(init=False)
    wanted: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.found = self.images.clone()
        self.size = torch.full_like(self.images[:, 0, 0, 0], torch.inf)
        self.wanted = torch.ones_like(self.size, dtype=torch.bool)

    def run(self, case: Case, steps: int, generator: torch.Generator | None) -> None:
        """One attempt at all wanted images, from a random point when there is a generator for it."""
        rows = self.wanted.nonzero().flatten()
        x = self.images[rows] if generator is None else self._elsewhere(rows, generator)
        for done in range(steps + 1):
            if not len(rows):
                return
            lead_now, slope, reached = self._look(x, case[rows])
            if done and bool(reached.any()):
                self._note(rows[reached], x[reached])
                x = torch.where(reached[:, None, None, None], self.images[rows] + self.beta * (x - self.images[rows]), x)
                lead_now[reached], slope[reached], _ = self._look(x[reached], case[rows[reached]])
                stay = self.wanted[rows]
                rows, x, lead_now, slope = rows[stay], x[stay], lead_now[stay], slope[stay]
            x = self._step(self.images[rows], x, lead_now, slope)

    def result(self) -> Tensor:
        """The images (n, c, h, w): those found within `eps`, all others as they were."""
        good = self.size.isfinite() if self.eps is None else self.size <= self.eps
        return torch.where(good[:, None, None, None], self.found, self.images)

    def _elsewhere(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Half as far away as the best point, or as the radius, at most."""
        images = self.images[rows]
        reach = self.size[rows].clamp_max(FAR[self.norm] if self.eps is None else self.eps) / 2
        return (images + reach[:, None, None, None] * random_direction(images, self.norm, generator)).clamp(0, 1)

    def _look(self, x: Tensor, case: Case) -> tuple[Tensor, Tensor, Tensor]:
        """How far the wanted class leads (n,), the slope of that lead (n, c, h, w), and which images (n,) are a success."""
        x = x.detach().requires_grad_()
        logits = check_logits(self.model(x), len(x))
        ahead = lead(logits, case)
        return ahead.detach(), torch.autograd.grad(ahead.sum(), x)[0], case.reached(logits.detach())

    def _step(self, images: Tensor, x: Tensor, ahead: Tensor, slope: Tensor) -> Tensor:
        """To a mixture of the plane's nearest points to x and to the images, a little past them."""
        from_x = onto_plane(x, slope, -ahead, self.norm)
        from_image = onto_plane(images, slope, (slope * (x - images)).flatten(1).sum(1) - ahead, self.norm)
        near, far = lengths(from_x, self.norm).clamp_min(1e-8), lengths(from_image, self.norm).clamp_min(1e-8)
        alpha = (near / (near + far)).clamp_max(self.alpha_max)[:, None, None, None]
        return ((1 - alpha) * (x + self.eta * from_x) + alpha * (images + self.eta * from_image)).clamp(0, 1)

    def _note(self, rows: Tensor, x: Tensor) -> None:
        size = lengths(x - self.images[rows], self.norm)
        better = size < self.size[rows]
        self.found[rows[better]], self.size[rows[better]] = x[better], size[better]
        if self.eps is not None:
            self.wanted[rows] &= self.size[rows] > self.eps
