"""What an audit tries, and how hard."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from mithridate.checks import within

EVASIONS = ("pgd:eps=0.00784314,steps=20", "pgd:eps=0.03137255,steps=20")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every choice of an audit, as method specifications; nothing here knows about any attack.

    Attributes:
        inspectors: the first one decides the verdict, the others are further evidence.
        evasions: attacks that measure robust accuracy; 2/255 and 8/255 by default.
        detectors: what screens the suspect inputs; together they keep to `fpr`.
        screen: what ranks the training images.
        repair: what makes the repaired model.
        fpr: share of clean inputs that may be refused, in (0, 1).
        robust_images: how many clean images each evasion attacks.
        seconds: time budget of the audit itself (reading files and models comes before), or None for everything, the same way
            every time. A budget cuts the epochs or steps of methods that are too slow, to no less than a quarter, and the number
            of images attacked; what still does not fit is left out, and the report says what. It is kept within a fifth if it
            covers what is never left out: looking at all images, the guard, and a quarter of the first inspector.
        seed: of every random draw.
    """

    inspectors: tuple[str, ...] = ("neural_cleanse", "adversarial_labels")
    evasions: tuple[str, ...] = EVASIONS
    detectors: tuple[str, ...] = ("kde",)
    screen: str = "spectral_signature"
    repair: str = "aft"
    fpr: float = 0.01
    robust_images: int = 500
    seconds: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        within(self, "(0, 1)", "fpr")
        within(self, "[1, inf)", "robust_images")
        within(self, "(0, inf]", "seconds")
        if not self.inspectors or not self.detectors:
            raise ValueError("inspectors and detectors must each name at least one method, got none")


class Clock:
    """Measures the steps and holds them to the time budget."""

    def __init__(self, budget: float | None) -> None:
        self.budget = math.inf if budget is None else budget
        self.started = time.perf_counter()
        self.steps: dict[str, float] = {}
        self.skipped: list[str] = []

    @property
    def limited(self) -> bool:
        """Whether there is a budget at all."""
        return self.budget < math.inf

    @property
    def left(self) -> float:
        """Seconds left of the budget."""
        return self.budget - (time.perf_counter() - self.started)

    def run(self, step: str, action: Any, *arguments: Any) -> Any:
        """Do a step and note its seconds."""
        begun = time.perf_counter()
        result = action(*arguments)
        self.steps[step] = self.steps.get(step, 0.0) + time.perf_counter() - begun
        return result

    def note(self, what: str) -> None:
        """Put down what the budget shortened."""
        self.skipped.append(what)

    def allows(self, step: str, seconds: float) -> bool:
        """Whether `seconds` more fit into the budget; if not, the step goes down as skipped."""
        if seconds <= self.left:
            return True
        self.skipped.append(f"{step}: needs about {seconds:.0f} s, {max(self.left, 0):.0f} s were left")
        return False
