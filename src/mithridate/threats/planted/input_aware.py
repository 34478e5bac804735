"""Input-aware dynamic backdoor: every image has a trigger of its own, and only its own opens the backdoor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mithridate import loops
from mithridate.checks import within
from mithridate.data import Samples
from mithridate.nn.modes import device_of
from mithridate.roles import Progress, register, silent
from mithridate.threats.dynamic import DynamicTrigger, alike, sharp
from mithridate.threats.planting import Painter, Planting, painter, sealed, share


class _MaskGoal(nn.Module):
    """What the mask network minimizes, for each image (n,): few pixels, and different ones for different images."""

    mask: Painter

    def __init__(self, mask: Painter, attack: InputAware) -> None:
        super().__init__()
        self.mask, self.attack = mask, attack

    def forward(self, images: Tensor) -> Tensor:
        """Losses (n,) of images (n, c, h, w); 4 x brings them to unit variance, as the paper's networks see them."""
        mask = sharp(self.mask(images))
        size = F.relu(mask - self.attack.density).mean((1, 2, 3))
        same = alike(4 * images, 4 * images.roll(1, 0), mask, mask.roll(1, 0))
        return (self.attack.lambda_norm * size + self.attack.lambda_div * same) / 100  # a scale that suits the recipe's learning rate


class _Joint(nn.Module):
    """The classifier and its trigger as one module, so that one loop trains, saves and resumes both."""

    classifier: nn.Module
    trigger: DynamicTrigger

    def __init__(self, classifier: nn.Module, trigger: DynamicTrigger, attack: InputAware) -> None:
        super().__init__()
        self.classifier, self.trigger, self.attack = classifier, trigger, attack

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, classes) of a batch whose first images are attacked and next ones crossed; and the diversity loss."""
        images = images.float()
        attacked, crossed = share(self.attack.p_attack, len(images)), share(self.attack.p_cross, len(images))
        victims, others, rest = images.tensor_split([attacked, attacked + crossed])
        donors = images[len(images) - len(others) :]
        patterns, masks = self.trigger(torch.cat([victims, donors]))
        stamped = torch.lerp(images[: len(patterns)], patterns, masks.expand_as(patterns))
        logits = self.classifier(torch.cat([stamped, rest]))
        pairs = min(len(victims), len(donors))
        same = alike(victims[:pairs], donors[:pairs], patterns[:pairs], patterns[attacked:][:pairs])
        return logits, same.sum() / max(1, pairs)


@register(
    "planter",
    scope=("dynamic",),
    cost="epochs x 1.2 forward and backward passes, and mask_epochs x 0.4",
    paper="Nguyen and Tran 2020, arXiv 2010.08138",
)
@dataclass(frozen=True, kw_only=True)
class InputAware(Planting):
    """A generator paints a trigger for each image; cross-entropy also teaches that a borrowed trigger means nothing.

    Attributes:
        p_attack: share of each batch that gets its own trigger and the target's label.
        p_cross: share that gets another image's trigger and keeps its label.
        lambda_div: weight of the diversity loss, of patterns and of masks.
        lambda_norm: weight of the mask's size.
        density: mask values up to this are free.
        mask_epochs: passes in which the mask network is trained, before all else and then never again.

    Source: Nguyen and Tran 2020, sections 3.2 to 3.4 and the released settings. Networks are small (see `planting.Painter`) and
    learn by the recipe's SGD for few epochs, where the paper runs Adam for 25 epochs of masks and hundreds of epochs in all.
    A run that goes on from a checkpoint trains the mask again, to the same bytes.
    """

    p_attack: float = 0.1
    p_cross: float = 0.1
    lambda_div: float = 1.0
    lambda_norm: float = 100.0
    density: float = 0.032
    mask_epochs: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "(0, 0.5]", "p_attack", "p_cross")
        within(self, "[0, inf)", "lambda_div", "lambda_norm")
        within(self, "[0, 1)", "density")
        within(self, "[1, inf)", "mask_epochs")

    def plant(
        self, model: nn.Module, clean: Samples, *, seed: int = 0, progress: Progress = silent, checkpoint: Path | None = None
    ) -> tuple[nn.Module, DynamicTrigger]:
        """An infected copy of the initial `model`, and the generator of triggers that open it.

        Raises:
            ValueError: no samples, a target that is no class, or a loss that diverges.
        """
        self.check(clean)
        channels, device = clean.images.shape[1], device_of(model)
        mask = self._mask(painter(seed, channels, 1).to(device), clean, seed, progress)
        joint = _Joint(model, DynamicTrigger(painter(seed + 1, channels, channels).to(device), mask), self)
        hooks = loops.Hooks(loss=self._loss, checkpoint=checkpoint, progress=progress, task="planting dynamic triggers")
        trained = loops.train(joint, clean, self, seed=seed, hooks=hooks)
        return trained.classifier, self.restore(trained.trigger.state_dict())

    def restore(self, state: Mapping[str, Tensor]) -> DynamicTrigger:
        """The trigger that a trigger's `state_dict` describes."""
        channels = state["pattern.last.weight"].shape[0]
        return sealed(DynamicTrigger(painter(0, channels, channels), painter(0, channels, 1)), state)

    def _mask(self, mask: Painter, clean: Samples, seed: int, progress: Progress) -> Painter:
        recipe = loops.Recipe(
            epochs=self.mask_epochs, batch_size=self.batch_size, lr=self.lr, pad=self.pad, flip=self.flip, precision=self.precision
        )
        hooks = loops.Hooks(loss=lambda values, labels: values.mean(), progress=progress, task="training masks")
        return loops.train(_MaskGoal(mask, self), clean, recipe, seed=seed, hooks=hooks).mask

    def _loss(self, output: Any, labels: Tensor) -> Tensor:
        logits, same = output
        loss: Tensor = F.cross_entropy(logits, self.relabel(labels, share(self.p_attack, len(labels)))) + self.lambda_div * same
        return loss
