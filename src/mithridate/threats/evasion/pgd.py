"""Projected gradient descent: step along the loss's gradient, return into the ball, repeat from several starts.

    x <- P(x + step * direction(grad_x loss(f(x), y)))

where P projects into the L-inf or L2 ball of radius eps around the image and into [0, 1], and the direction is the
gradient's sign (L-inf) or the normalized gradient (L2). A targeted goal lowers the loss towards its class instead.

Scope: white-box adversarial examples of differentiable models. Cost: restarts * steps gradients an image, less for images
fooled early. Known failures: gradient masking (flat losses; try `loss=margin`), and it finds no minimal perturbation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mithridate.checks import within
from mithridate.nn.ascent import Ascent, Budget, ascend
from mithridate.nn.modes import has_fast_bf16
from mithridate.roles import Goal, register
from mithridate.threats.searching.batches import in_batches


@register(
    "evasion",
    scope=("linf", "l2", "untargeted", "targeted", "whitebox"),
    cost="restarts * steps gradients per image",
    paper="Madry et al., ICLR 2018, arXiv 1706.06083",
)
@dataclass(frozen=True, kw_only=True)
class PGD:
    """Projected gradient descent inside an L-inf or L2 ball, with random restarts.

    Attributes:
        norm: of the perturbation of one image, over all its pixels and channels.
        eps: radius, in pixel units of [0, 1].
        step: length of one step; None for a quarter of `eps`.
        steps: gradient steps of each restart.
        restarts: attempts; images fooled by one are not tried again, unless `early_exit` is off.
        random_start: begin each attempt at a random point of the ball.
        momentum: share of the earlier directions kept in each step, in [0, 1).
        loss: cross-entropy, or the logit margin, which no confidence can flatten.
        early_exit: stop at the first perturbation that fools; off, the strongest one within the steps is sought.
        fast: gradients in bf16 and channels-last, where images are float32 and the hardware computes bf16; what counts as fooled
            is decided in full precision.
        batch_size: images attacked at once.

    Raises:
        ValueError: a field out of its range.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float = 8 / 255
    step: float | None = None
    steps: int = 10
    restarts: int = 1
    random_start: bool = True
    momentum: float = 0.0
    loss: Literal["ce", "margin"] = "ce"
    early_exit: bool = True
    fast: bool = True
    batch_size: int = 256

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "restarts", "batch_size")
        self._budget(fast=False)

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, goal: Goal = Goal(), *, seed: int = 0) -> Tensor:
        """Adversarial examples (n, c, h, w), in [0, 1] and within `eps` of the images to 1e-6.

        Arguments and errors are those of `roles.Evasion.perturb`; `seed` draws the random starts.
        """
        generator = torch.Generator().manual_seed(seed)

        def strongest(x: Tensor, y: Tensor, aim: Goal) -> Tensor:
            return self._strongest(model, x, y, aim, generator)

        return in_batches(strongest, images, labels, goal, self.batch_size)

    def _strongest(self, model: nn.Module, images: Tensor, labels: Tensor, goal: Goal, generator: torch.Generator) -> Tensor:
        budget = self._budget(self.fast and images.dtype == torch.float32 and has_fast_bf16(images.device))
        best = ascend(model, images, labels, budget, goal, generator=generator)
        found, fooled, objective = best.images, best.fooled, best.objective
        for _ in range(self.restarts - 1):
            again = (~fooled if self.early_exit else torch.ones_like(fooled)).nonzero().flatten()
            if not len(again):
                break
            new = ascend(model, images[again], labels[again], budget, goal[again], generator=generator)
            better = _beats(new, fooled[again], objective[again])
            won = again[better]
            found[won], fooled[won], objective[won] = new.images[better], new.fooled[better], new.objective[better]
        return found

    def _budget(self, fast: bool) -> Budget:
        return Budget(
            norm=self.norm,
            eps=self.eps,
            step=self.step,
            steps=self.steps,
            random_start=self.random_start,
            momentum=self.momentum,
            loss=self.loss,
            early_exit=self.early_exit,
            fast=fast,
        )


def _beats(new: Ascent, fooled: Tensor, objective: Tensor) -> Tensor:
    """Where the new attempt (n,) is better: it fools and the old one does not, or both are alike and its loss is higher."""
    return (new.fooled & ~fooled) | ((new.fooled == fooled) & (new.objective > objective))
