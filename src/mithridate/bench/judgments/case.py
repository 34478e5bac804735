"""What a judgment works on, and what it finds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mithridate import judge, methods
from mithridate.bench.protocol import Parts, Protocol
from mithridate.bench.victims import Loaded
from mithridate.card import Card
from mithridate.metrics import Rate
from mithridate.nn.effort import metered
from mithridate.roles import Evasion, Progress, Verdict


@dataclass(frozen=True, eq=False)
class Case:
    """One defense before the judge.

    Attributes:
        config: of the cell.
        defense: the method, or None for no defense.
        victim: the model in question, with the key.
        twin: the clean twin, or the victim itself where that is clean.
        parts: clean images of the defense and of the judge.
        protocol: the conditions.
        before: card of the victim without any defense, judged on the same images; None where that is being made.
        verdict: of the inspection that the defense builds on, if it does.
        out: folder for what the judgment leaves.
        progress: told how far it is.
    """

    config: Mapping[str, Any]
    defense: Any
    victim: Loaded
    twin: Loaded
    parts: Parts
    protocol: Protocol
    before: Card | None
    verdict: Verdict | None
    out: Path
    progress: Progress

    @property
    def seed(self) -> int:
        """Of every random draw."""
        return int(self.config["seed"])

    @property
    def evasion(self) -> Evasion | None:
        """The attack that a detector is judged on in place of a backdoor."""
        spec = self.config["evasion"]
        return None if spec is None else methods.parse(spec, "evasion")


@dataclass
class Finding:
    """What comes of a judgment: the parts of a card."""

    metrics: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    cost: dict[str, int] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def timed(self, case: Case) -> Iterator[None]:
        """Measure what the defense itself takes: seconds, and images through the victim and back."""
        begun = time.perf_counter()
        with metered(case.victim.model) as effort:
            yield
        self.seconds["defense"] = time.perf_counter() - begun
        self.cost |= {"forwards": effort.forwards, "gradients": effort.gradients}


def interval(rate: Rate) -> list[float]:
    """A share with its 95 % interval, as cards hold it."""
    return [rate.value, *rate.interval]


def share(hits: Tensor) -> list[float]:
    """The share of a mask (n,) that is set, with its interval, as cards hold it."""
    return interval(Rate(int(hits.sum()), len(hits)))


def robust(case: Case, model: Any, evasions: Sequence[str]) -> dict[str, Any]:
    """Accuracy under attack, one entry an attack."""
    images = case.parts.test[: case.protocol.robust_images]
    attacks = ((spec, methods.parse(spec, "evasion")) for spec in evasions)
    return {f"robust {spec}": interval(judge.robust_accuracy(model, images, each, seed=case.seed)) for spec, each in attacks}
