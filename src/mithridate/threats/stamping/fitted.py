"""Patches that are fitted to a model of the attacker's, and the triggers that paste them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mithridate.checks import within
from mithridate.data import Samples
from mithridate.nn.modes import frozen
from mithridate.roles import Progress
from mithridate.threats.stamping.patches import Corner, check_place, paste, windows
from mithridate.threats.stamping.surrogate import Attacker

Loss = Callable[[Tensor], Tensor]
BATCH = 64  # images a patch is tried on at once


class PatchTrigger(nn.Module):
    """A crafted square in the corners of images; its state is the patch (c, s, s), in [0, 1], and the shape (c, h, w) of the images."""

    takes_uint8: ClassVar[bool] = True
    patch: Tensor
    shape: Tensor

    def __init__(self, patch: Tensor, shape: Tensor, corner: str, margin: int) -> None:
        super().__init__()
        self.register_buffer("patch", patch.clone())
        self.register_buffer("shape", shape.clone())
        self.corner, self.margin = corner, margin

    def stamp(self, images: Tensor) -> Tensor:
        """Images (n, c, h, w), float in [0, 1] or uint8 -> stamped copies of the same dtype.

        Raises:
            ValueError: images of another shape than the trigger was made for.
        """
        self.check(images)
        return paste(images, self.patch, self.corner, self.margin)

    def check(self, images: Tensor) -> None:
        """Refuse images of another shape.

        Raises:
            ValueError: images of another shape than the trigger was made for.
        """
        made_for = tuple(self.shape.tolist())
        if images.shape[1:] != made_for:
            raise ValueError(f"images must each be of the shape that the trigger was made for, {made_for}, got {tuple(images.shape[1:])}")


@dataclass(frozen=True, kw_only=True)
class PatchAttacker(Attacker):
    """An attacker whose trigger is a patch.

    Attributes:
        size: side of the patch in pixels.
        corner: one corner, or `all` four.
        margin: distance from the border in pixels.
    """

    size: int = 5
    corner: Corner = "bottom-right"
    margin: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_place(self.size, self.corner, self.margin)

    def check(self, clean: Samples, target: int) -> None:
        """Refuse what nothing can be crafted from.

        Raises:
            ValueError: no samples, a target that is no class, or a patch that does not fit the images with its margin.
        """
        super().check(clean, target)
        windows(clean.images.shape[2], clean.images.shape[3], self.size, self.corner, self.margin)


@dataclass(frozen=True, kw_only=True)
class PatchFitter(PatchAttacker):
    """An attacker who fits a patch to what their model makes of it.

    Attributes:
        layer: see the method; empty for the last hidden one.
        steps: of Adam, at least 1.
        lr: of Adam, on the tanh parameters of the patch.
    """

    layer: str = ""
    steps: int = 300
    lr: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "[1, inf)", "steps")
        within(self, "(0, inf)", "lr")

    def restore(self, state: Mapping[str, Tensor]) -> PatchTrigger:
        """The trigger that a trigger's `state_dict` describes."""
        return PatchTrigger(state["patch"], state["shape"], self.corner, self.margin)

    def fit(self, model: nn.Module, loss: Loss, images: Tensor, generator: torch.Generator, progress: Progress) -> PatchTrigger:
        """The patch that lowers `loss` (stamped images -> scalar) over random batches of `images`, in steps of 1/255.

        Source: TrojanZoo's latent backdoor (Pang et al. 2022, arXiv 2012.09302): Adam at 0.1 on tanh parameters.
        """
        start = torch.rand(images.shape[1], self.size, self.size, generator=generator) * 0.98 + 0.01
        hidden = torch.atanh(2 * start - 1).to(images.device).requires_grad_()
        optimizer = torch.optim.Adam([hidden], self.lr)
        with frozen(model), torch.enable_grad():
            for step in range(self.steps):
                batch = images[torch.randint(len(images), (BATCH,), generator=generator).to(images.device)]
                optimizer.zero_grad()
                loss(paste(batch, (torch.tanh(hidden) + 1) / 2, self.corner, self.margin)).backward()
                optimizer.step()
                progress("fitting a patch", step + 1, self.steps)
        patch = ((torch.tanh(hidden.detach()) + 1) * 127.5).round() / 255
        return self.restore({"patch": patch, "shape": torch.tensor(images.shape[1:])})
