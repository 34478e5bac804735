"""Adversarial fine-tuning: an infected model's adversarial examples share features with its trigger, so unlearning them unlearns it.

The first epochs train on untargeted PGD examples of the current model under their true labels, the later ones on plain images,
which wins back clean accuracy. Attacks see the model in eval mode, updates in train mode.

Carried further: where an inspector's verdict names a target, universal adversarial examples take the place of the PGD ones, which
cost more clean accuracy. The smallest trigger towards the target is reversed anew at each epoch, and a share of every batch is
stamped with one of the triggers found so far, under the true labels. The search ends when the target needs a larger one than
ordinary classes did. Nothing of the attacker's is used.

Scope: patches, with a verdict. Cost: (adversarial x (steps + 1) + the other epochs) passes over the clean images, and a search per
epoch. Known failures: without a verdict it belongs to the fine-tuning family, which leaves most triggers alive when clean images
are few; and a repaired model can relearn its backdoor from a few poisoned images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mithridate import loops
from mithridate.analysis.reversal import Search, reverse
from mithridate.data import Samples
from mithridate.errors import NotFinite
from mithridate.nn.ascent import Budget, ascend
from mithridate.nn.modes import has_fast_bf16
from mithridate.roles import Progress, Verdict, register, silent

PAPER = 3  # adversarial epochs of the paper's method
GROWN = 2.0  # the search ends when a trigger covers this many times the verdict's median class


@register(
    "repair",
    scope=("patch",),
    cost="(adversarial x (steps + 1) + the other epochs) passes over the clean images",
    paper="Niu et al. 2023 (CVPR, PBE), arXiv 2202.06312",
)
@dataclass(frozen=True, kw_only=True)
class AFT:
    """Fine-tune on clean images, the first epochs on their adversarial examples, and on stamped ones where a verdict helps.

    Attributes:
        epochs: passes over the clean images.
        adversarial: how many of them, at the start, are on PGD examples; None for 3, or 0 where a verdict gives universal ones.
        eps: L-inf budget in pixel units of [0, 1].
        steps: PGD steps of eps / 5 each, without a random start.
        universal: share of each batch stamped with reversed triggers; 0 for the paper's method.
        search: gradient steps of each reversal.
        batch_size: images a step.
        lr: peak learning rate of a cosine schedule; a run that diverges starts again at a tenth of it, twice at most.
        weight_decay: L2 penalty.
        pad: largest random shift in pixels.
        flip: random mirroring.

    Source: arXiv 2202.06312, algorithm 1 with a clean extra set. From its released code: eps 6/255, 7 steps, 3 of 20 epochs
    adversarial, batch 128; there the learning rate is a constant 1e-3, and examples may leave [0, 1]. The stamped share is that of
    Wang et al., IEEE S&P 2019, section VI.C.
    """

    epochs: int = 20
    adversarial: int | None = None
    eps: float = 6 / 255
    steps: int = 7
    universal: float = 0.2
    search: int = 100
    batch_size: int = 128
    lr: float = 0.01
    weight_decay: float = 5e-4
    pad: int = 2
    flip: bool = False

    def __post_init__(self) -> None:
        Search(steps=self.search)
        self._recipe(self.lr)
        self._budget(torch.device("cpu"))
        if self.adversarial is not None and not 0 <= self.adversarial <= self.epochs:
            raise ValueError(f"adversarial must lie in [0, {self.epochs}], got {self.adversarial}")
        if not 0 <= self.universal <= 1:
            raise ValueError(f"universal must lie in [0, 1], got {self.universal}")

    def repair(
        self, model: nn.Module, samples: Samples, *, verdict: Verdict | None = None, seed: int = 0, progress: Progress = silent
    ) -> nn.Module:
        """A repaired copy of `model`, from clean `samples`.

        Raises:
            ValueError: no samples.
            NotFinite: even a hundredth of the learning rate diverges.
        """
        for lr in (self.lr, self.lr / 10):
            try:
                return self._fine_tune(model, samples, verdict, lr, seed, progress)
            except NotFinite as error:
                progress("repairing more slowly", 0, 1, f"learning rate {lr:g}: {error}")
        return self._fine_tune(model, samples, verdict, self.lr / 100, seed, progress)

    def _fine_tune(
        self, model: nn.Module, samples: Samples, verdict: Verdict | None, lr: float, seed: int, progress: Progress
    ) -> nn.Module:
        marks = None
        if self.universal and verdict is not None and verdict.target is not None and "mask" in verdict.evidence:
            marks = _Marks(samples, verdict, verdict.target, Search(steps=self.search), seed)
        adversarial = (PAPER if marks is None else 0) if self.adversarial is None else self.adversarial

        def transform(student: nn.Module, images: Tensor, labels: Tensor, epoch: int) -> Tensor:
            if epoch < adversarial:
                images = ascend(student, images, labels, self._budget(images.device)).images
            return images if marks is None else marks.stamp(student, images, round(self.universal * len(images)), epoch)

        hooks = loops.Hooks(transform=transform, progress=progress, task="repairing")
        return loops.train(model, samples, self._recipe(lr), seed=seed, hooks=hooks)

    def _recipe(self, lr: float) -> loops.Recipe:
        return loops.Recipe(
            epochs=self.epochs, batch_size=self.batch_size, lr=lr, weight_decay=self.weight_decay, pad=self.pad, flip=self.flip
        )

    def _budget(self, device: torch.device) -> Budget:
        return Budget(eps=self.eps, step=self.eps / 5, steps=self.steps, fast=has_fast_bf16(device))


class _Marks:
    """The triggers reversed so far, one more at each epoch until the target is as hard to reach as other classes."""

    def __init__(self, samples: Samples, verdict: Verdict, target: int, search: Search, seed: int) -> None:
        self.samples, self.target, self.search = samples, target, search
        self.limit = GROWN * float(verdict.evidence["mask"].flatten(1).mean(1).median())
        self.generator = torch.Generator().manual_seed(seed)
        self.masks = verdict.evidence["mask"][None, self.target]
        self.patterns = verdict.evidence["pattern"][None, self.target]
        self.epoch, self.searching = -1, True

    def stamp(self, model: nn.Module, images: Tensor, count: int, epoch: int) -> Tensor:
        """The images, the first `count` of them (the batch is in random order) each with a random one of the triggers."""
        if epoch > self.epoch and self.searching:
            self._search(model)
        self.epoch = epoch
        drawn = torch.randint(len(self.masks), (count,), generator=self.generator)
        masks, patterns = self.masks[drawn].to(images), self.patterns[drawn].to(images)
        return torch.cat([torch.lerp(images[:count], patterns, masks.expand_as(patterns)), images[count:]])

    def _search(self, model: nn.Module) -> None:
        mask, pattern = reverse(model, self.samples, self.search, self.generator, targets=[self.target])
        self.searching = float(mask.mean()) <= self.limit
        if self.searching:
            self.masks, self.patterns = torch.cat([self.masks, mask]), torch.cat([self.patterns, pattern])
