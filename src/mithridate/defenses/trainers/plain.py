"""Plain training: the baseline every other trainer is compared with, and what makes victims."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from mithridate import loops
from mithridate.data import Samples
from mithridate.roles import Progress, register, silent


@register("trainer", scope=(), cost="epochs x one forward and backward pass", paper="He et al. 2016, arXiv 1512.03385, section 4.2")
@dataclass(frozen=True, kw_only=True)
class Plain(loops.Recipe):
    """Cross-entropy with SGD, random crops and flips: a recipe that is also a method. It defends against nothing."""

    def train(
        self, model: nn.Module, samples: Samples, *, seed: int = 0, progress: Progress = silent, checkpoint: Path | None = None
    ) -> nn.Module:
        """A trained copy of the initial `model`.

        Raises:
            ValueError: no samples, or the loss diverges.
        """
        return loops.train(model, samples, self, seed=seed, hooks=loops.Hooks(checkpoint=checkpoint, progress=progress))
