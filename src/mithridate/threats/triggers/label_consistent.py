"""Label-consistent: target-class images that a model can hardly recognize, so that it learns the patch on them instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mithridate.data import Samples
from mithridate.nn.ascent import Budget, ascend
from mithridate.roles import Progress, register, silent
from mithridate.threats.stamping.fitted import CleanLabelPatch
from mithridate.threats.stamping.patches import Corner, check_place, paste, pattern, windows
from mithridate.threats.stamping.surrogate import Attacker, exact, quick

ROBUST = Budget(eps=8 / 255, step=10 / 255, steps=1, random_start=True)  # what the surrogate is hardened against


@register(
    "trigger",
    scope=("patch", "clean-label", "crafted"),
    cost="surrogate_epochs of adversarial training, steps gradients per poisoned image",
    paper="Turner et al. 2019, arXiv 1912.02771",
)
@dataclass(frozen=True, kw_only=True)
class LabelConsistent(Attacker):
    """Adversarial examples of a hardened surrogate with a patch in each corner, true labels kept; at test time the patch alone.

    Attributes:
        eps: L-inf radius of the perturbation, in pixel units of [0, 1].
        step: length of one of its steps.
        steps: how many.
        size: side of the patch in pixels.
        pattern: `grid`, `white`, or the path of an image, which is resized to the patch.
        corner: one corner, or `all` four, which survives mirroring and shifts.
        margin: distance from the border in pixels.

    Source: Turner et al. 2019, section 4 (L-inf perturbations, patterns in the corners). The perturbation comes first, the patch
    on top of it, at full strength. A surrogate that is read from a file should have been hardened; that is not checked.
    """

    clean_label: ClassVar[bool] = True
    eps: float = 8 / 255
    step: float = 1.5 / 255
    steps: int = 100
    size: int = 3
    pattern: str = "grid"
    corner: Corner = "all"
    margin: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_place(self.size, self.corner, self.margin)
        self._budget()

    def craft(self, clean: Samples, target: int, *, seed: int = 0, progress: Progress = silent) -> CleanLabelPatch:
        """The corners' patch, with the hardened surrogate behind it to poison with.

        Raises:
            ValueError: no samples, or a target, a surrogate or a patch that does not fit them.
        """
        self.check(clean, target)
        windows(clean.images.shape[2], clean.images.shape[3], self.size, self.corner, self.margin)
        patch = pattern(self.pattern, clean.images.shape[1], self.size).to(clean.images.device)
        model = self.model(clean, robust=ROBUST, seed=seed, progress=progress)

        def disturb(images: Tensor, generator: torch.Generator) -> Tensor:
            return paste(self.disturb(model, images, target), patch, self.corner, self.margin)

        trigger = self.restore({"patch": patch, "shape": torch.tensor(clean.images.shape[1:])})
        trigger.disturb = disturb
        return trigger

    def restore(self, state: Mapping[str, Tensor]) -> CleanLabelPatch:
        """The trigger that a trigger's `state_dict` describes; it can stamp, but not poison."""
        return CleanLabelPatch(state["patch"], state["shape"], self.corner, self.margin)

    def disturb(self, model: nn.Module, images: Tensor, target: int) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] of class `target` -> float32 images within `eps` that the model finds hard."""
        labels = torch.full((len(images),), target, device=images.device)
        return ascend(model, exact(images), labels, quick(self._budget(), images.device)).images

    def _budget(self) -> Budget:
        return Budget(eps=self.eps, step=self.step, steps=self.steps)
