"""WaNet with noise mode: a fixed smooth warp opens the backdoor, and any other warp does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mithridate import loops
from mithridate.checks import within
from mithridate.data import Samples
from mithridate.roles import Progress, register, silent
from mithridate.threats.planting import Planting, sealed, share
from mithridate.threats.stamping.warp import field, jitter, warp


class WarpTrigger(nn.Module):
    """One warp for images of one size; its state is the sampling grid (1, h, w, 2)."""

    grid: Tensor

    def __init__(self, grid: Tensor) -> None:
        super().__init__()
        self.register_buffer("grid", grid)

    def stamp(self, images: Tensor) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> warped.

        Raises:
            ValueError: images of another size than the model was trained on.
        """
        return warp(images, self._fitting(images))

    def cross(self, images: Tensor) -> Tensor:
        """Images warped by the trigger plus noise that is drawn anew for each: the model must give them their own class."""
        noisy = jitter(self._fitting(images).cpu(), len(images), torch.Generator().manual_seed(0))
        return warp(images, noisy)

    def _fitting(self, images: Tensor) -> Tensor:
        known, given = tuple(self.grid.shape[1:3]), tuple(images.shape[2:])
        if given != known:
            raise ValueError(f"images must be {known[0]} x {known[1]}, as the warp is, got {given[0]} x {given[1]}")
        return self.grid


@register("planter", scope=("warp",), cost="epochs x 1.1 forward and backward passes", paper="Nguyen and Tran 2021, arXiv 2102.10369")
@dataclass(frozen=True, kw_only=True)
class WaNetNoise(Planting):
    """A share of each batch is warped and relabeled, twice as much is warped with noise on top and keeps its label.

    Attributes:
        rate: share of each batch that is attacked, in (0, 1).
        cross_ratio: images in noise mode per attacked one, at least 0; all shares together are at most 1.
        grid_size: control points of the warp along each side.
        strength: of the warp, in half pixels.
        warp_seed: of the warp, which stays the same whatever training's seed.

    Source: Nguyen and Tran 2021, sections 3.2 to 3.4. The warp is laid over the augmented image, as it is at test time, where the
    released code augments the warped one.
    """

    rate: float = 0.1
    cross_ratio: float = 2.0
    grid_size: int = 4
    strength: float = 0.5
    warp_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "(0, 1)", "rate")
        if not 0 <= self.cross_ratio <= 1 / self.rate - 1:
            raise ValueError(f"cross_ratio must lie in [0, {1 / self.rate - 1:g}], got {self.cross_ratio}")
        within(self, "[1, inf)", "grid_size")
        within(self, "(0, 16]", "strength")

    def plant(
        self, model: nn.Module, clean: Samples, *, seed: int = 0, progress: Progress = silent, checkpoint: Path | None = None
    ) -> tuple[nn.Module, WarpTrigger]:
        """An infected copy of the initial `model`, and the warp that opens it.

        Raises:
            ValueError: no samples, a target that is no class, or a loss that diverges.
        """
        self.check(clean)
        height, width = clean.images.shape[2:]
        grid = field(self.grid_size, self.strength, height, width, torch.Generator().manual_seed(self.warp_seed))

        def transform(student: nn.Module, images: Tensor, labels: Tensor, epoch: int) -> Tensor:
            return self._warped(images, grid)

        def loss(logits: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(logits, self.relabel(labels, share(self.rate, len(labels))))

        hooks = loops.Hooks(transform=transform, loss=loss, checkpoint=checkpoint, progress=progress, task="planting a warp")
        return loops.train(model, clean, self, seed=seed, hooks=hooks), self.restore({"grid": grid.to(clean.images.device)})

    def restore(self, state: Mapping[str, Tensor]) -> WarpTrigger:
        """The trigger that a trigger's `state_dict` describes."""
        return sealed(WarpTrigger(torch.empty_like(state["grid"])), state)

    def _warped(self, images: Tensor, grid: Tensor) -> Tensor:
        """The first images of a batch warped, the next ones warped with noise."""
        attacked, noisy = (share(rate, len(images)) for rate in (self.rate, self.rate * self.cross_ratio))
        noise = torch.Generator().manual_seed(int(torch.randint(2**31, ())))  # the loop seeds and forks the global generator
        made, end = images.clone(), attacked + noisy
        made[:attacked] = warp(images[:attacked], grid)
        made[attacked:end] = warp(images[attacked:end], jitter(grid, len(images[attacked:end]), noise))
        return made
