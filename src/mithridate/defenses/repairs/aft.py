"""Adversarial fine-tuning: a model's adversarial examples share features with its trigger, so unlearning them unlearns it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from mithridate import loops
from mithridate.data import Samples
from mithridate.nn.ascent import Budget, ascend
from mithridate.roles import Progress, Verdict, register, silent

Mark = tuple[Tensor, Tensor]


@register(
    "repair",
    scope=("patch",),
    cost="(adversarial x (steps + 1) + the other epochs) passes over the clean images",
    paper="Niu et al. 2023 (CVPR, PBE), arXiv 2202.06312",
)
@dataclass(frozen=True, kw_only=True)
class AFT:
    """Fine-tune on clean images, the first epochs on untargeted PGD examples of the current model with their true labels.

    The infected model's untargeted adversarial examples come close to triggered images in feature space; teaching it their true
    labels takes the trigger's effect away. The later epochs on plain images win back clean accuracy. Attacks see the model in
    eval mode, updates in train mode.

    Known failures: it belongs to the fine-tuning family, which leaves low-rate and blended triggers partly alive, and a repaired
    model can relearn its backdoor from a few poisoned images.

    Carried further: where an inspector's verdict holds a reversed trigger, that trigger is one more adversarial example, and a
    universal one; a share of every batch is stamped with it under the true labels. Nothing of the attacker's is used.

    Attributes:
        epochs: passes over the clean images.
        adversarial: how many of them, at the start, are adversarial.
        eps: L-inf budget in pixel units of [0, 1].
        steps: PGD steps of eps / 5 each, without a random start.
        batch_size: images a step.
        lr: learning rate, constant.
        weight_decay: L2 penalty.
        pad: largest random shift in pixels.
        flip: random mirroring.
        universal: share of each batch that is stamped with the verdict's reversed trigger; 0 for the paper's method.

    Source: arXiv 2202.06312, algorithm 1 with a clean extra set, and the constants of its released code (eps 6/255, 7 steps,
    3 of 20 epochs adversarial, lr 1e-3, batch 128), except that examples are kept inside [0, 1].
    """

    epochs: int = 20
    adversarial: int = 3
    eps: float = 6 / 255
    steps: int = 7
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 5e-4
    pad: int = 4
    flip: bool = False
    universal: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.adversarial <= self.epochs:
            raise ValueError(f"adversarial must lie in [0, {self.epochs}], got {self.adversarial}")
        if not 0 <= self.universal <= 1:
            raise ValueError(f"universal must lie in [0, 1], got {self.universal}")

    def repair(
        self, model: nn.Module, samples: Samples, *, verdict: Verdict | None = None, seed: int = 0, progress: Progress = silent
    ) -> nn.Module:
        """A repaired copy of `model`, from clean `samples`.

        Raises:
            ValueError: no samples, or the loss diverges.
        """
        recipe = loops.Recipe(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            schedule="constant",
            weight_decay=self.weight_decay,
            pad=self.pad,
            flip=self.flip,
        )
        mark = _mark(verdict) if self.universal else None
        transform = partial(self._transform, mark=mark)
        return loops.train(model, samples, recipe, seed=seed, hooks=loops.Hooks(transform=transform, progress=progress, task="repairing"))

    def _transform(self, model: nn.Module, images: Tensor, labels: Tensor, epoch: int, mark: Mark | None) -> Tensor:
        if epoch < self.adversarial:
            budget = Budget(eps=self.eps, step=self.eps / 5, steps=self.steps, fast=loops.has_fast_bf16(images.device))
            images = ascend(model, images, labels, budget).images
        if mark is None:
            return images
        mask, pattern = (tensor.to(images) for tensor in mark)
        count = round(self.universal * len(images))  # the batch is in random order
        return torch.cat([torch.lerp(images[:count], pattern, mask), images[count:]])


def _mark(verdict: Verdict | None) -> Mark | None:
    """Mask (1, h, w) and pattern (c, h, w) of the target's reversed trigger, if the verdict holds one."""
    if verdict is None or verdict.target is None or not {"mask", "pattern"} <= verdict.evidence.keys():
        return None
    mask, pattern = verdict.evidence["mask"][verdict.target], verdict.evidence["pattern"][verdict.target]
    return mask.expand_as(pattern), pattern
