"""Fast gradient sign method: one gradient, one step to the edge of the ball.

    x' = clip(x + step * sign(grad_x loss(f(x), y)), 0, 1)

In L2 the step follows the gradient itself, scaled to length. A random start first jumps to a point of the ball, and the longer
step that suits it is cut back into the ball (Wong et al., ICLR 2020, algorithm 3). A targeted goal lowers the loss towards its class.

Scope: white-box adversarial examples of differentiable models, exact for linear ones of two classes. Cost: one gradient an image.
Known failures: weak on models whose loss is curved inside the ball (use `pgd`), fooled by gradient masking.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mithridate.checks import within
from mithridate.nn.ascent import Budget, ascend
from mithridate.roles import Goal, register
from mithridate.threats.searching.batches import in_batches


@register(
    "evasion",
    scope=("linf", "l2", "untargeted", "targeted", "whitebox"),
    cost="1 gradient per image",
    paper="Goodfellow et al., ICLR 2015, arXiv 1412.6572; random start: Wong et al., ICLR 2020, arXiv 2001.03994",
)
@dataclass(frozen=True, kw_only=True)
class FGSM:
    """One step along the sign of the gradient, to the edge of an L-inf or L2 ball.

    Attributes:
        norm: of the perturbation of one image, over all its pixels and channels.
        eps: radius, in pixel units of [0, 1].
        step: length of the step; None for `eps`, or 1.25 `eps` from a random start.
        random_start: begin at a random point of the ball, uniform in volume, instead of at the image.
        early_exit: images that reach the goal as they are stay as they are.
        batch_size: images attacked at once.

    Raises:
        ValueError: a field out of its range.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float = 8 / 255
    step: float | None = None
    random_start: bool = False
    early_exit: bool = True
    batch_size: int = 256

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "batch_size")
        self._budget()

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, goal: Goal = Goal(), *, seed: int = 0) -> Tensor:
        """Adversarial examples (n, c, h, w), in [0, 1] and within `eps` of the images to 1e-6.

        Arguments and errors are those of `roles.Evasion.perturb`; `seed` draws the random starts.
        """
        generator = torch.Generator().manual_seed(seed)

        def once(x: Tensor, y: Tensor, aim: Goal) -> Tensor:
            return ascend(model, x, y, self._budget(), aim, generator=generator).images

        return in_batches(once, images, labels, goal, self.batch_size)

    def _budget(self) -> Budget:
        step = self.step if self.step is not None else self.eps * (1.25 if self.random_start else 1)
        return Budget(norm=self.norm, eps=self.eps, step=step, steps=1, random_start=self.random_start, early_exit=self.early_exit)
