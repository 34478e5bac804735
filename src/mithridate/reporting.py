"""What a trainer can say beside the model it gives: what it saw in data nobody vouches for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from mithridate.data import Samples
from mithridate.roles import Progress, silent


@dataclass(frozen=True, eq=False)
class Learned:
    """What a trainer learned from n samples; every tensor is on the CPU.

    Attributes:
        model: the trained one, in eval mode.
        suspicion: (n,) finite, higher = more suspicious.
        suspected: (n,) bool, the samples it holds for poisoned and kept out; none where it found nothing to hold against them.
        losses: (epochs, n) cross-entropy of each sample in the training forward of each early epoch; no epochs if it keeps none.
        notes: what it saw and did, a sentence each.
        doubt: why to suspect none of the samples would say little, a sentence; nothing where it says something.
    """

    model: nn.Module
    suspicion: Tensor
    suspected: Tensor
    losses: Tensor
    notes: tuple[str, ...] = ()
    doubt: str = ""


class Watch(Protocol):
    """A look at a model that is being learned, such as a judge's; it must leave the model alone."""

    def __call__(self, stage: str, epoch: int, model: nn.Module) -> None:
        """`epoch` epochs of `stage` are done; the model is in eval mode."""
        ...


def unwatched(stage: str, epoch: int, model: nn.Module) -> None:
    """The watch that looks at nothing."""


def told(watch: Watch, stage: str) -> Callable[[nn.Module, int], bool]:
    """The judgment after each epoch of a training loop that shows the model to a watch, and goes on."""

    def after(model: nn.Module, epochs: int) -> bool:
        watch(stage, epochs, model)
        return True

    return after


@runtime_checkable
class Reporting(Protocol):
    """A `Trainer` that also says what it saw: its `train` gives the model of `learn`."""

    def learn(
        self,
        model: nn.Module,
        samples: Samples,
        *,
        seed: int = 0,
        progress: Progress = silent,
        checkpoint: Path | None = None,
        watch: Watch = unwatched,
    ) -> Learned:
        """A trained copy of the initial `model` and what was seen on the way; all else is as in `Trainer.train`."""
        ...
