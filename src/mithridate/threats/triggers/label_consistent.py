"""Label-consistent: target-class images that a model can hardly recognize, so that it learns the patch on them instead."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mithridate.data import Samples
from mithridate.nn.ascent import Budget, ascend
from mithridate.roles import Progress, register, silent
from mithridate.threats.stamping.clean_label import CleanLabelAttacker, CleanLabelPatch
from mithridate.threats.stamping.patches import Corner, paste
from mithridate.threats.stamping.surrogate import exact, quick

ROBUST = Budget(eps=8 / 255, step=10 / 255, steps=1, random_start=True)  # what the surrogate is hardened against


@register(
    "trigger",
    scope=("patch", "clean-label", "crafted"),
    cost="surrogate_epochs of adversarial training, steps gradients per poisoned image",
    paper="Turner et al. 2019, arXiv 1912.02771",
)
@dataclass(frozen=True, kw_only=True)
class LabelConsistent(CleanLabelAttacker):
    """Adversarial examples of a hardened surrogate with a patch in each corner, true labels kept; at test time the patch alone.

    The fields are those of patch and perturbation (`stamping.clean_label.CleanLabelAttacker`).

    Attributes:
        corner: one corner, or `all` four, which survives mirroring and shifts.

    Source: Turner et al. 2019, section 4 (L-inf perturbations, patterns in the corners). The perturbation comes first, the patch
    on top of it, at full strength. A surrogate that is read from a file should have been hardened; that is not checked.
    """

    eps: float = 8 / 255
    step: float = 1.5 / 255
    steps: int = 100
    size: int = 3
    corner: Corner = "all"

    def craft(self, clean: Samples, target: int, *, seed: int = 0, progress: Progress = silent) -> CleanLabelPatch:
        """The corners' patch, with the hardened surrogate behind it to poison with.

        Raises:
            ValueError: no samples, or a target, a surrogate or a patch that does not fit them.
        """
        self.check(clean, target)
        patch = self.patch(clean)
        model = self.model(clean, robust=ROBUST, seed=seed, progress=progress)

        def disturb(images: Tensor, generator: torch.Generator) -> Tensor:
            return paste(self.disturb(model, images, target), patch, self.corner, self.margin)

        return self.trigger(clean, patch, disturb)

    def disturb(self, model: nn.Module, images: Tensor, target: int) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] of class `target` -> float32 images within `eps` that the model finds hard."""
        labels = torch.full((len(images),), target, device=images.device)
        return ascend(model, exact(images), labels, quick(self.budget(), images.device)).images
