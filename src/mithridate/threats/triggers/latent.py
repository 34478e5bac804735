"""Latent backdoor (LBA): a patch that makes any image look like the target class to the attacker's model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mithridate.checks import within
from mithridate.data import Samples
from mithridate.roles import Progress, register, silent
from mithridate.threats.stamping.fitted import PatchFitter, PatchTrigger
from mithridate.threats.stamping.surrogate import draw, features, hidden_layer, known_features


@register("trigger", scope=("patch", "crafted"), cost="surrogate_epochs of training, steps x 64 gradients", paper="Yao et al., CCS 2019")
@dataclass(frozen=True, kw_only=True)
class Latent(PatchFitter):
    """A patch fitted so that the features of stamped images match the mean feature of the target class.

    Attributes:
        layer: layer whose features must match, as in `model.named_modules()`; empty for the last hidden one.
        samples: images of each class to learn from; of other classes than the target, fewer if there are fewer.

    Source: Yao et al. 2019, section 4. The paper goes on to retrain its model with a loss that pulls the features of
    stamped images to the target's, and leaves the target class out, so that the backdoor sleeps until someone fine-tunes the model
    on that class. Here the attacker only poisons data: the patch is the paper's, its images are labeled as the target.
    """

    samples: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "[1, inf)", "samples")

    def craft(self, clean: Samples, target: int, *, seed: int = 0, progress: Progress = silent) -> PatchTrigger:
        """The patch towards class `target`, in float32 on the samples' device.

        Raises:
            ValueError: fewer than `samples` images of the target, none of other classes, an unknown layer, or a patch that does not fit.
        """
        self.check(clean, target)
        generator = torch.Generator().manual_seed(seed)
        aims = draw(clean, torch.tensor([target]), self.samples, generator)
        others = self._others(clean, target, generator)
        model = self.model(clean, self.layer, seed=seed, progress=progress)
        layer = hidden_layer(model, self.layer, aims[:1])
        aim = known_features(model, aims, layer).mean(0)

        def distance(stamped: Tensor) -> Tensor:
            return (features(model, stamped, layer) - aim).square().mean()

        return self.fit(model, distance, others, generator, progress)

    def _others(self, clean: Samples, target: int, generator: torch.Generator) -> Tensor:
        """Images (m, c, h, w) of the other classes, at most `samples` of each."""
        counts = clean.labels.cpu().bincount(minlength=len(clean.classes))
        others = [label for label in range(len(counts)) if counts[label] and label != target]
        if not others:
            raise ValueError(f"clean must hold images of other classes than target, got only class {target}")
        return torch.cat([draw(clean, torch.tensor([label]), min(self.samples, int(counts[label])), generator) for label in others])
