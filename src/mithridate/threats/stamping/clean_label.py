"""Attackers who poison images of the target class alone: their own model disturbs what goes into training, a patch opens the backdoor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mithridate.data import Samples
from mithridate.nn.ascent import Budget
from mithridate.threats.stamping.fitted import PatchAttacker, PatchTrigger
from mithridate.threats.stamping.patches import pattern

Disturb = Callable[[Tensor, torch.Generator], Tensor]


class CleanLabelPatch(PatchTrigger):
    """A square whose poisoned training images are made with the attacker's model; one that was restored can only stamp."""

    clean_label: ClassVar[bool] = True
    disturb: Disturb | None = None

    def implant(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] of the target class -> what goes into the training set.

        Raises:
            ValueError: images of another shape, or the trigger was restored from its state, which holds no model.
        """
        self.check(images)
        if self.disturb is None:
            raise ValueError("trigger must be crafted from data to poison with it, got one restored from its state")
        return self.disturb(images, generator).to(images) if len(images) else images.clone()


@dataclass(frozen=True, kw_only=True)
class CleanLabelAttacker(PatchAttacker):
    """An attacker who perturbs images of the target class within a budget, and has a patch at test time.

    Attributes:
        eps: L-inf radius of the perturbation, in pixel units of [0, 1].
        step: length of one of its steps.
        steps: how many, at least 1.
        pattern: of the patch: `grid`, `white`, or the path of an image, which is resized to it.
    """

    clean_label: ClassVar[bool] = True
    eps: float
    step: float
    steps: int
    pattern: str = "grid"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.budget()

    def restore(self, state: Mapping[str, Tensor]) -> CleanLabelPatch:
        """The trigger that a trigger's `state_dict` describes; it can stamp, but not poison."""
        return CleanLabelPatch(state["patch"], state["shape"], self.corner, self.margin)

    def patch(self, clean: Samples) -> Tensor:
        """The patch (c, s, s) for such images, on their device.

        Raises:
            ValueError: a path that is no readable picture.
        """
        return pattern(self.pattern, clean.images.shape[1], self.size).to(clean.images.device)

    def trigger(self, clean: Samples, patch: Tensor, disturb: Disturb) -> CleanLabelPatch:
        """The trigger that pastes the patch, and poisons with what `disturb` makes of images of the target class."""
        trigger = self.restore({"patch": patch, "shape": torch.tensor(clean.images.shape[1:])})
        trigger.disturb = disturb
        return trigger

    def budget(self) -> Budget:
        """How far poisoned images may be from what they were, and how they get there."""
        return Budget(eps=self.eps, step=self.step, steps=self.steps)
