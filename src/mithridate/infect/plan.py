"""What victim to make, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from mithridate.card import Card
from mithridate.data import Samples, Truth
from mithridate.judge import Key
from mithridate.roles import Craft, Planter, Trainer, Trigger
from mithridate.threats.dose import Dose


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What victim to make.

    Attributes:
        architecture: name of a model of the zoo.
        attack: a trigger that is stamped on training images, a planter who trains the model itself, or None for the clean twin.
        dose: how much poison, and what it leads to; of a planter, only the target counts.
        trainer: how it is trained, unless by a planter.
        seed: of poisoning, initialization and training.
        twin: card of the clean twin, with whose accuracy the victim's is compared.

    Raises:
        ValueError: a planter with a target other than the dose's.
    """

    architecture: str
    attack: Trigger | Craft | Planter | None
    dose: Dose = field(default_factory=Dose)
    trainer: Trainer
    seed: int = 0
    twin: Card | None = None

    def __post_init__(self) -> None:
        if isinstance(self.attack, Planter) and self.attack.target != self.dose.target:
            raise ValueError(f"target must be the planter's own, {self.attack.target}, got {self.dose.target}")


@dataclass(frozen=True, eq=False)
class Poisoned:
    """A poisoned training set and (judge only) what was done to it and what opens the backdoor; clean without an attack."""

    training: Samples
    truth: Truth | None = None
    trigger: Trigger | None = None

    @property
    def key(self) -> Key | None:
        """The judge's answer key (judge only); None without an attack."""
        if self.trigger is None or self.truth is None:
            return None
        return Key(self.trigger, self.truth.target, self.truth.trigger, self.truth.sources)


@dataclass(frozen=True, eq=False)
class Victim:
    """A trained victim, the data it was trained on, and the judge's card."""

    model: nn.Module
    data: Poisoned
    card: Card
