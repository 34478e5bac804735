"""The eight roles a method can play, what they exchange, and the registry that lists every method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from mithridate.data import Samples

Role = Literal["trigger", "planter", "evasion", "trainer", "screen", "detector", "inspector", "repair"]


class Progress(Protocol):
    """How a method tells how far it is; whoever shows it decides how."""

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` steps of `task` are finished."""
        ...


def silent(task: str, done: int, total: int, note: str = "") -> None:
    """The progress callback that shows nothing."""


@dataclass(frozen=True, eq=False)
class Goal:
    """What a malicious input wants: any wrong class (`target=None`), one class (an int), or a class per sample (n,)."""

    target: int | Tensor | None = None

    def reached(self, predicted: Tensor, labels: Tensor) -> Tensor:
        """Which predictions (n,) fulfil the goal, given the true labels (n,), as bool (n,)."""
        return predicted != labels if self.target is None else predicted == self.target

    def __getitem__(self, rows: Tensor | slice) -> Goal:
        """The goal of the chosen samples, by index, mask or slice."""
        return Goal(self.target[rows]) if isinstance(self.target, Tensor) else self

    def to(self, device: torch.device | str) -> Goal:
        """The same goal on another device."""
        return Goal(self.target.to(device)) if isinstance(self.target, Tensor) else self

    def anchor(self, labels: Tensor) -> Tensor:
        """The class (n,) an attack works with: the one to reach, or, of an untargeted goal, the true one to leave."""
        if self.target is None:
            return labels
        return torch.as_tensor(self.target, device=labels.device, dtype=labels.dtype).expand_as(labels)


@dataclass(frozen=True, eq=False)
class Verdict:
    """What an inspector says about a model.

    Attributes:
        infected: the decision.
        target: the class the backdoor leads to, or None when not infected.
        p_value: chance in [0, 1] that a clean model looks at least this suspicious.
        per_class: (classes,) suspicion of each class, higher = more suspicious.
        evidence: named tensors for the report, such as reversed triggers `mask` (classes, 1, h, w) and `pattern` (classes, c, h, w).
        note: one sentence that says what was seen.
    """

    infected: bool
    target: int | None
    p_value: float
    per_class: Tensor
    evidence: dict[str, Tensor] = field(default_factory=dict, repr=False)
    note: str = ""

    def __repr__(self) -> str:
        said = f"Verdict(infected={self.infected}, target={self.target}, p_value={self.p_value:.2g})"
        return f"{said}: {self.note}" if self.note else said


@runtime_checkable
class Trigger(Protocol):
    """Stamps a backdoor's trigger onto images.

    One that only replaces or moves pixels may take uint8 images as they are; its class attribute `takes_uint8` says so.
    Its habits, where it has any, are attributes too: `clean_label` (only images of the target class are poisoned, and keep
    their label), `sources` (only these classes are poisoned) and `cover_ratio` (cover samples for each poisoned one).
    """

    def stamp(self, images: Tensor) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> stamped images of the same shape and range."""
        ...


@runtime_checkable
class Implant(Protocol):
    """A trigger whose poisoned training images differ from what is sent at test time."""

    def implant(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> what goes into the training set; all chance comes from `generator`, on the CPU."""
        ...


@runtime_checkable
class Cover(Protocol):
    """A trigger with cover samples of its own: images that keep their label, so that only the exact trigger works."""

    def cover(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] with labels (n,) -> cover samples; all chance comes from `generator`, on the CPU."""
        ...


@runtime_checkable
class Craft(Protocol):
    """A trigger that has to be made from data first; it plays the role `trigger` in the registry."""

    def craft(self, clean: Samples, target: int, *, seed: int = 0, progress: Progress = silent) -> Trigger:
        """The trigger towards class `target`: an `nn.Module` whose state is all that stamping needs."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> Trigger:
        """The crafted trigger again, from its `state_dict()`; it can stamp, and need not be able to implant."""
        ...


@runtime_checkable
class Planter(Protocol):
    """An attacker who controls training."""

    @property
    def target(self) -> int:
        """Class index that the trigger leads to."""
        ...

    def plant(
        self, model: nn.Module, clean: Samples, *, seed: int = 0, progress: Progress = silent, checkpoint: Path | None = None
    ) -> tuple[nn.Module, Trigger]:
        """A newly trained, infected copy of the initial `model`, and the trigger, an `nn.Module`, that opens it.

        With a checkpoint file, a killed run goes on to the same bytes.
        """
        ...

    def restore(self, state: Mapping[str, Tensor]) -> Trigger:
        """The trigger again, from the `state_dict` of one that was planted."""
        ...


@runtime_checkable
class Evasion(Protocol):
    """Makes adversarial examples."""

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, goal: Goal = Goal(), *, seed: int = 0) -> Tensor:
        """Float images (n, c, h, w) in [0, 1], on the model's device -> perturbed images, in [0, 1] and inside the method's budget.

        The model gives logits (n, classes) and is bit-identical afterwards; labels (n,) are int64 true classes; `seed` draws all chance.

        Raises:
            ValueError: images, labels or targets that do not fit, or a model that does not return finite logits.
        """
        ...


@runtime_checkable
class Trainer(Protocol):
    """Trains a model on data nobody vouches for."""

    def train(
        self, model: nn.Module, samples: Samples, *, seed: int = 0, progress: Progress = silent, checkpoint: Path | None = None
    ) -> nn.Module:
        """A trained copy of the initial `model`; with a checkpoint file, a killed run goes on to the same bytes."""
        ...


@runtime_checkable
class Screen(Protocol):
    """Scores training samples: which are poisoned."""

    def screen(self, model: nn.Module, samples: Samples, *, seed: int = 0, progress: Progress = silent) -> Tensor:
        """Scores (n,), finite, higher = more suspicious."""
        ...


class Scorer(Protocol):
    """A fitted detector: an `nn.Module` that maps images to suspicion."""

    differentiable: bool

    def __call__(self, images: Tensor) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> scores (n,), finite, higher = more malicious."""
        ...


@runtime_checkable
class Detector(Protocol):
    """Scores inputs at run time. Attributes: `scorer`, the class that `fit` returns; `learns`, evasions that it learns from, if any."""

    def fit(self, model: nn.Module, clean: Samples, *, seed: int = 0, progress: Progress = silent) -> Scorer:
        """A fitted scorer, a new `nn.Module`."""
        ...


@runtime_checkable
class Inspector(Protocol):
    """Judges a model: is it infected, and towards which class."""

    def inspect(self, model: nn.Module, clean: Samples, *, seed: int = 0, progress: Progress = silent) -> Verdict:
        """The verdict with its evidence."""
        ...


@runtime_checkable
class Repair(Protocol):
    """Removes a backdoor from a model."""

    def repair(
        self, model: nn.Module, samples: Samples, *, verdict: Verdict | None = None, seed: int = 0, progress: Progress = silent
    ) -> nn.Module:
        """A repaired copy of `model`; a `verdict` of an inspector may help, the truth is never given."""
        ...


@dataclass(frozen=True)
class Entry:
    """One line of the registry: a method class and what is said of it."""

    name: str
    role: Role
    method: type[Any]
    scope: tuple[str, ...]
    cost: str
    paper: str

    @property
    def summary(self) -> str:
        """First line of the method's docstring."""
        return (self.method.__doc__ or "").strip().partition("\n")[0]


REGISTRY: dict[str, Entry] = {}
_Method = TypeVar("_Method", bound=type[Any])


def register(role: Role, *, scope: tuple[str, ...], cost: str, paper: str) -> Callable[[_Method], _Method]:
    """Enter a method into the registry under its module's name, so that one file and one import line add it everywhere.

    Args:
        role: the role it plays.
        scope: the planted problems it claims to solve (defenses) or what it makes (threats), in one-word tags.
        cost: what it costs, in passes over the data.
        paper: its source: authors, year, venue or arXiv number.

    Raises:
        ValueError: an unknown role, a name that is taken, or a class that is not a frozen dataclass.
    """
    if role not in get_args(Role):
        raise ValueError(f"role must be one of {', '.join(get_args(Role))}, got {role!r}")

    def enter(method: _Method) -> _Method:
        name = method.__module__.rpartition(".")[2]
        params = getattr(method, "__dataclass_params__", None)
        if params is None or not params.frozen:
            raise ValueError(f"method {name!r} must be a frozen dataclass")
        if name in REGISTRY and REGISTRY[name].method.__module__ != method.__module__:
            raise ValueError(f"name {name!r} is taken by {REGISTRY[name].method.__module__}")
        REGISTRY[name] = Entry(name, role, method, scope, cost, paper)
        return method

    return enter
