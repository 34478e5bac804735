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
from mithridate.analysis.marks import Marks, usable
from mithridate.analysis.reversal import Search
from mithridate.checks import within
from mithridate.data import Samples
from mithridate.errors import NotFinite
from mithridate.nn.ascent import Budget, ascend
from mithridate.nn.modes import clone, has_fast_bf16, predict
from mithridate.roles import Progress, Verdict, register, silent

PAPER = 3  # adversarial epochs of the paper's method


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
        tolerance: so does one that costs a larger share of held-out clean accuracy, where no verdict asks for more,
            and if all do, the model is given back as it was; 1 for never.
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
    tolerance: float = 0.02
    weight_decay: float = 5e-4
    pad: int = 2
    flip: bool = False

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "search")
        self._recipe(self.lr)
        self._budget(torch.device("cpu"))
        within(self, f"[0, {self.epochs}]", "adversarial")
        within(self, "[0, 1]", "universal", "tolerance")

    def repair(
        self, model: nn.Module, samples: Samples, *, verdict: Verdict | None = None, seed: int = 0, progress: Progress = silent
    ) -> nn.Module:
        """A repaired copy of `model`, from clean `samples`.

        Raises:
            ValueError: no samples.
            NotFinite: even a hundredth of the learning rate diverges.
        """
        known, held = samples, None
        if self.tolerance < 1 and not usable(verdict) and len(samples) >= 10:
            held, known = samples.split(len(samples) // 5, seed=seed)
        diverged: NotFinite | None = None
        for lr in (self.lr, self.lr / 10, self.lr / 100):
            try:
                repaired, diverged = self._fine_tune(model, known, verdict, lr, seed, progress), None
                if held is None or _accuracy(model, held) - _accuracy(repaired, held) <= self.tolerance:
                    return repaired
            except NotFinite as error:
                diverged = error
            progress("repairing more gently", 0, 1, f"learning rate {lr:g} was too high")
        if diverged is not None:
            raise diverged
        return clone(model).eval()

    def _fine_tune(
        self, model: nn.Module, samples: Samples, verdict: Verdict | None, lr: float, seed: int, progress: Progress
    ) -> nn.Module:
        marks = Marks(samples, verdict, Search(steps=self.search), seed) if verdict and self.universal and usable(verdict) else None
        adversarial = (PAPER if marks is None else 0) if self.adversarial is None else self.adversarial

        def transform(student: nn.Module, images: Tensor, labels: Tensor, epoch: int) -> Tensor:
            if epoch < adversarial:
                images = ascend(student, images, labels, self._budget(images.device)).images
            return images if marks is None else marks.stamp(student, images, round(self.universal * len(images)), epoch)

        hooks = loops.Hooks(transform=transform, progress=progress, task=f"repairing at lr {lr:g}")
        return loops.train(model, samples, self._recipe(lr), seed=seed, hooks=hooks)

    def _recipe(self, lr: float) -> loops.Recipe:
        return loops.Recipe(
            epochs=self.epochs, batch_size=self.batch_size, lr=lr, weight_decay=self.weight_decay, pad=self.pad, flip=self.flip
        )

    def _budget(self, device: torch.device) -> Budget:
        return Budget(eps=self.eps, step=self.eps / 5, steps=self.steps, fast=has_fast_bf16(device))


def _accuracy(model: nn.Module, samples: Samples) -> float:
    return float((predict(model, samples).argmax(1) == samples.labels.cpu()).float().mean())
