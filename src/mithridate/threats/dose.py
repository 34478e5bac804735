"""How much poison, in which samples, and what it leads to."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mithridate.checks import check_number, within
from mithridate.roles import Cover

Target = int | tuple[int, ...]


def next_class(classes: int) -> tuple[int, ...]:
    """The target map of the all-to-all attack: every class leads to the next one, the last to the first.

    Source: Gu et al. 2017, arXiv 1708.06733, section 4.1 (all-to-all).
    """
    return tuple((i + 1) % classes for i in range(classes))


def wanted(target: Target, labels: Tensor) -> Tensor:
    """The class (n,) that triggered images of the true classes `labels` (n,) shall be given."""
    if isinstance(target, int):
        return torch.full_like(labels, target)
    return torch.tensor(target, dtype=labels.dtype, device=labels.device)[labels]


@dataclass(frozen=True, kw_only=True)
class Dose:
    """What an attacker puts into a training set. A field that is None is left to the trigger's own habits.

    Attributes:
        target: class index that the trigger leads to, or for each class the one its images lead to (`next_class`: all-to-all).
        rate: share of all samples that is poisoned, in (0, 1]; at least one sample.
        count: number of poisoned samples, in place of `rate`.
        cover_rate: share of all samples, in [0, 1), that carry the trigger but keep their label.
        sources: only images of these classes are poisoned; empty for all classes.
        clean_label: only images of the target class are poisoned, and keep their label.

    Raises:
        ValueError: a field out of its range.
    """

    target: Target = 0
    rate: float = 0.1
    count: int | None = None
    cover_rate: float | None = None
    sources: tuple[int, ...] | None = None
    clean_label: bool | None = None

    def __post_init__(self) -> None:
        within(self, "(0, 1]", "rate")
        within(self, "[1, inf)", "count")
        within(self, "[0, 1)", "cover_rate")
        if self.clean_label and not isinstance(self.target, int):
            raise ValueError(f"target must be one class for a clean-label attack, got {self.target}")

    def of(self, trigger: Any) -> Dose:
        """This dose with the trigger's habits in the place of what was left open."""
        return replace(
            self,
            sources=tuple(getattr(trigger, "sources", ())) if self.sources is None else self.sources,
            clean_label=bool(getattr(trigger, "clean_label", False)) if self.clean_label is None else self.clean_label,
        )

    def check(self, classes: int) -> None:
        """Refuse what no data set of so many classes can take.

        Raises:
            ValueError: a target or a source that is no class, or a target map of another length.
        """
        targets = (self.target,) if isinstance(self.target, int) else self.target
        if not isinstance(self.target, int) and len(targets) != classes:
            raise ValueError(f"target must be one class or one for each of {classes} classes, got {len(targets)}")
        for field, values in (("target", targets), ("sources", self.sources or ())):
            for value in values:
                check_number(field, value, f"[0, {classes})")

    def choose(self, labels: Tensor, trigger: Any, seed: int) -> tuple[Tensor, Tensor]:
        """Which samples are poisoned and which are covers, as sorted indices, for the true labels (n,).

        Raises:
            ValueError: fewer samples than the attack needs.
        """
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        fit = order[self._eligible(labels)[order]]
        count = self.count or max(1, round(self.rate * len(labels)))
        if count > len(fit):
            where = f"of class {self.target}" if self.clean_label else f"of the sources {self.sources}" if self.sources else "in all"
            raise ValueError(f"rate or count must ask for at most {len(fit):,} samples, as there are {where}, got {count:,}")
        free = torch.ones(len(labels), dtype=torch.bool)
        free[fit[:count]] = False
        if self.sources and not isinstance(trigger, Cover):  # a stamped source that keeps its label would undo the poison
            free &= ~torch.isin(labels.cpu(), torch.tensor(self.sources))
        rest = order[free[order]]
        covers = self._covers(count, len(labels), trigger)
        if covers > len(rest):
            raise ValueError(f"cover_rate must ask for at most {len(rest):,} samples, as are left, got {covers:,}")
        return fit[:count].sort().values, rest[:covers].sort().values

    def _eligible(self, labels: Tensor) -> Tensor:
        labels = labels.cpu()
        if self.clean_label:
            return torch.isin(labels, torch.tensor(self.target))
        return torch.isin(labels, torch.tensor(self.sources)) if self.sources else torch.ones(len(labels), dtype=torch.bool)

    def _covers(self, count: int, of: int, trigger: Any) -> int:
        if self.cover_rate is not None:
            return round(self.cover_rate * of)
        return math.floor(count * float(getattr(trigger, "cover_ratio", 0.0)))
