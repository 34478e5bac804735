"""Projected gradient descent that fools a model and stays under the thresholds of the detectors that watch it.

Two gradients are at hand: f, which leads to the goal, and g, which lowers the worst score's excess over its threshold.

    selective    f while the goal is not reached, g once it is
    orthogonal   the same, less what undoes the other:  f - (f.g / g.g) g  and  g - (f.g / f.f) f  where f.g < 0
    sum          f / |f|, and + g / |g| while detected

so that `orthogonal` never gives up, to first order, what the other half has won. (The paper projects where the two agree as well, which
throws away what helps both.) What it has not fooled in half of the steps follows f itself from then on, for a ball may hold no point
that fools unseen. A step follows the gradient's sign (L-inf; the orthogonal one keeps its direction, which signs would bend) or its
direction (L2), and is pulled back into the ball. An image is finished when it fools *and* is not detected. With `eot` > 1 both
gradients are means over draws of a randomized model or scorer, and every draw must be fooled unseen. For scorers that are not
differentiable, g pulls their layers towards those of the nearest clean image of the class that the attack leads to.

The detectors come with the model, as a `Guarded`; on any other model this is plain PGD on the cross-entropy.

Scope: an attacker who knows model, detectors and thresholds. Cost: restarts * steps * eot passes, two gradients each. Known
failures: scores whose gradient says nothing (masked, or flat outside the clean data); `sum` stands still where its two halves cancel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mithridate.checks import one_of, within
from mithridate.nn.ascent import Budget, project
from mithridate.nn.guarded import Guarded
from mithridate.nn.modes import frozen
from mithridate.roles import Goal, register
from mithridate.threats.searching.balls import unit
from mithridate.threats.searching.batches import in_batches
from mithridate.threats.searching.seeding import seeded
from mithridate.threats.searching.watched import REST, UNSEEN, Found, consider


@register(
    "evasion",
    scope=("linf", "l2", "untargeted", "targeted", "whitebox", "adaptive"),
    cost="restarts * steps * eot forward passes and twice as many gradients per image",
    paper="Bryniarski et al., ICLR 2022, arXiv 2106.15023; EOT: Athalye et al., ICML 2018, arXiv 1707.07397",
)
@dataclass(frozen=True, kw_only=True)
class DetectorPGD:
    """Projected gradient descent against a model and its detectors at once.

    Attributes:
        norm: of the perturbation of one image, over all its pixels and channels.
        eps: radius, in pixel units of [0, 1].
        step: length of one step (its mean over pixels where a step is not a sign); None for a tenth of `eps`.
        steps: gradient steps of each restart.
        restarts: attempts, from the image itself and then from random points; finished images are not tried again.
        strategy: how the two gradients are joined; `selective` hides most real images, `orthogonal` gets by with the least change.
        eot: draws of a randomized model or scorer in each step.
        batch_size: images attacked at once.

    Raises:
        ValueError: a field out of its range.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float = 8 / 255
    step: float | None = None
    steps: int = 40
    restarts: int = 1
    strategy: Literal["orthogonal", "selective", "sum"] = "selective"
    eot: int = 1
    batch_size: int = 256

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "restarts", "eot", "batch_size")
        one_of(self, ("orthogonal", "selective", "sum"), "strategy")
        self._budget()

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, goal: Goal = Goal(), *, seed: int = 0) -> Tensor:
        """Adversarial examples (n, c, h, w), in [0, 1] and within `eps` to 1e-6: of each image the best seen on the way.

        Fooled and undetected is best, then fooled with the lowest score, then the highest margin.

        Arguments and errors are those of `roles.Evasion.perturb`; the model may be a `Guarded`, and `seed` draws the random
        starts and what a randomized model or scorer draws.
        """
        guarded = model if isinstance(model, Guarded) else Guarded(model)
        generator = torch.Generator().manual_seed(seed)

        def search(x: Tensor, y: Tensor, aim: Goal) -> Tensor:
            return self._search(guarded, x, y, aim, generator)

        with frozen(guarded), seeded(seed), torch.enable_grad():
            return in_batches(search, images, labels, goal, self.batch_size)

    def _search(self, guarded: Guarded, images: Tensor, labels: Tensor, goal: Goal, generator: torch.Generator) -> Tensor:
        best, budget = images.clone(), self._budget()
        rank, merit = torch.full_like(labels, REST), images.new_full((len(images),), -torch.inf)
        for restart in range(self.restarts):
            active = (rank < UNSEEN).nonzero().flatten()
            x = images[active]
            if restart:
                noise = torch.rand(images.shape, generator=generator)[active.cpu()]
                x = project(x + self.eps * (2 * noise - 1).to(x), x, budget)
            for left in reversed(range(self.steps + 1)):
                if not len(active):
                    break
                found = consider(guarded, x, labels[active], goal[active], self.eot)
                better = (found.rank > rank[active]) | ((found.rank == rank[active]) & (found.merit > merit[active]))
                won = active[better]
                best[won], rank[won], merit[won] = x[better], found.rank[better], found.merit[better]
                keep = found.rank < UNSEEN
                if left:
                    x = project(x + self._stride(found, 2 * left > self.steps), images[active], budget)
                active, x = active[keep], x[keep]
        return best

    def _stride(self, found: Found, early: bool) -> Tensor:
        """One step (n, c, h, w), in the budget's norm; images that are not fooled early stop sparing the detectors."""
        leave, hide = unit(found.leave, "l2"), unit(found.hide, "l2")
        if self.strategy == "sum":
            direction = leave + hide * found.detected[:, None, None, None]
        else:
            if self.strategy == "orthogonal":
                along = (leave * hide).sum((1, 2, 3), keepdim=True).clamp(max=0)
                leave, hide = leave - along * hide if early else leave, hide - along * leave
            direction = torch.where((found.rank > REST)[:, None, None, None], hide, leave)
        length = self.eps / 10 if self.step is None else self.step
        if self.norm == "l2":
            return length * unit(direction, "l2")
        if self.strategy != "orthogonal":
            return length * direction.sign()
        return length * direction / direction.abs().mean((1, 2, 3), keepdim=True).clamp_min(torch.finfo(direction.dtype).tiny)

    def _budget(self) -> Budget:
        return Budget(norm=self.norm, eps=self.eps, step=self.step, steps=self.steps)
