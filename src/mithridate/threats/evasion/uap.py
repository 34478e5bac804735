"""Universal perturbation: one change that fools the model on most images it is added to.

    maximize over d:  mean_i min(loss(f(clip(x_i + d, 0, 1)), y_i), clip)   with   |d| <= eps

by projected steps on small batches. The bound on the loss keeps a few badly fooled images from deciding alone. A targeted goal lowers
the loss towards its class instead. Where Moosavi-Dezfooli et al. add up DeepFool steps image by image, this climbs for all at once.

Scope: white-box perturbations that are made once and work on unseen images. Cost: epochs passes, forwards and back, and one forwards
each. Known failures: few images give a perturbation that only works on them; targets that differ by image pull it apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mithridate.checks import one_of, within
from mithridate.nn.ascent import check_batch
from mithridate.nn.modes import check_logits, frozen
from mithridate.roles import Goal, register
from mithridate.threats.searching.attempts import reaching
from mithridate.threats.searching.balls import lengths, unit


@register(
    "evasion",
    scope=("linf", "l2", "untargeted", "targeted", "whitebox", "universal"),
    cost="epochs gradients and forwards per image",
    paper="Shafahi et al., AAAI 2020, arXiv 1811.11304, algorithm 2; Moosavi-Dezfooli et al., CVPR 2017, arXiv 1610.08401",
)
@dataclass(frozen=True, kw_only=True)
class UAP:
    """One perturbation for all images, by stochastic gradient ascent inside an L-inf or L2 ball.

    Attributes:
        norm: of the perturbation, over all its pixels and channels.
        eps: radius, in pixel units of [0, 1].
        step: length of one step; None for a tenth of `eps`.
        epochs: passes over the images.
        momentum: share of the earlier directions kept in each step, in [0, 1).
        clip: cross-entropy above which an image is fooled well enough.
        early_exit: stop when every image is fooled.
        batch_size: images of one step.

    Raises:
        ValueError: a field out of its range.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float = 10 / 255
    step: float | None = None
    epochs: int = 10
    momentum: float = 0.9
    clip: float = 9.0
    early_exit: bool = True
    batch_size: int = 128

    def __post_init__(self) -> None:
        one_of(self, ("linf", "l2"), "norm")
        within(self, "(0, inf)", "eps", "step", "clip")
        within(self, "[1, inf)", "epochs", "batch_size")
        within(self, "[0, 1)", "momentum")

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, goal: Goal = Goal(), *, seed: int = 0) -> Tensor:
        """All images (n, c, h, w) with the perturbation made from them, in [0, 1] and within `eps` of the images to 1e-6.

        Arguments and errors are those of `roles.Evasion.perturb`; `seed` shuffles the images.
        """
        return (images.detach() + self.universal(model, images, labels, goal, seed=seed)).clamp(0, 1)

    def universal(self, model: nn.Module, images: Tensor, labels: Tensor, goal: Goal = Goal(), *, seed: int = 0) -> Tensor:
        """The perturbation (c, h, w) itself, of length `eps` at most: the one that fooled most, looked at after every epoch.

        Arguments and errors are those of `perturb`. Added to an image, the sum must be cut back into [0, 1].
        """
        check_batch(images, labels, goal)
        images, labels, goal = images.detach(), labels.to(images.device), goal.to(images.device)
        generator, change = torch.Generator().manual_seed(seed), torch.zeros_like(images[:1])
        with frozen(model):
            best, most, velocity = change, self._fooled(model, images, labels, goal), torch.zeros_like(change)
            for _ in range(self.epochs):
                if self.early_exit and most == len(images):
                    break
                for rows in torch.randperm(len(images), generator=generator).to(images.device).split(self.batch_size):
                    slope = self._slope(model, images[rows], change, labels[rows], goal[rows])
                    velocity = self.momentum * velocity + unit(slope, self.norm)
                    change = self._inside(change + self._step(velocity))
                fooled = self._fooled(model, images + change, labels, goal)
                best, most = (change, fooled) if fooled > most else (best, most)
        return best[0]

    @torch.enable_grad()
    def _slope(self, model: nn.Module, images: Tensor, change: Tensor, labels: Tensor, goal: Goal) -> Tensor:
        change = change.clone().requires_grad_()
        logits = check_logits(model((images + change).clamp(0, 1)), len(images))
        loss = cross_entropy(logits, goal.anchor(labels), reduction="none")
        worth = loss.clamp_max(self.clip) if goal.target is None else -loss
        return torch.autograd.grad(worth.mean(), change)[0]

    def _step(self, direction: Tensor) -> Tensor:
        length = self.eps / 10 if self.step is None else self.step
        return length * (direction.sign() if self.norm == "linf" else unit(direction, "l2"))

    def _inside(self, change: Tensor) -> Tensor:
        if self.norm == "linf":
            return change.clamp(-self.eps, self.eps)
        return change * (self.eps / lengths(change, "l2").clamp_min(self.eps))

    def _fooled(self, model: nn.Module, images: Tensor, labels: Tensor, goal: Goal) -> int:
        """How many of the images, cut back into [0, 1], reach the goal."""
        return int(reaching(model, images.clamp(0, 1), labels, goal, self.batch_size).sum())
