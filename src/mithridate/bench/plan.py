"""A plan: which threats meet which defenses. One TOML file, one list of cells."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from mithridate.bench.protocol import Protocol
from mithridate.errors import BadFile, BadSpec

RULES = ("rates", "adaptive")


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class Threat:
    """One line of `threats`: a method, and what of the dose differs from the plan's.

    Attributes:
        method: specification of a trigger, planter or evasion, or a pattern such as `adap_*`.
        rates: poison rates; None for the plan's. Planters and evasions have none.
        target: class index, `all-to-all`, or None for class 0.
        sources: the only classes that are poisoned; None for the trigger's habit.
        cover_rate: share of images that carry the trigger and keep their label; None for the trigger's habit.
        clean_label: poison only images of the target class; None for the trigger's habit.
    """

    method: str
    rates: tuple[float, ...] | None = None
    target: int | str = 0
    sources: tuple[int, ...] | None = None
    cover_rate: float | None = None
    clean_label: bool | None = None

    @property
    def dose(self) -> dict[str, Any]:
        """What the dose says beside a rate, as cells hold it."""
        told = {"target": self.target, "sources": self.sources, "cover_rate": self.cover_rate, "clean_label": self.clean_label}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in told.items() if value is not None}


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class Plan:
    """A declared grid.

    Attributes:
        title: what the grid is about.
        datasets: names or paths, as `datasets.load` takes them.
        models: architectures.
        threats: triggers, planters and evasions; the clean twin is always added.
        defenses: trainers, screens, detectors, inspectors and repairs; `neural_cleanse+aft` gives a repair an inspector's verdict.
        trainer: what victims are trained by.
        trainers: data set -> trainer in place of that, such as one of more epochs for a smaller set.
        rates: poison rates.
        seeds: of everything random; each seed is a full repetition.
        images: how many training images are used; None for all.
        size: (height, width) that images are resized to; needed for folders of differing sizes.
        robustness: evasions under which every model that a defense hands back is measured.
        minutes: time budget, which `bench plan` compares its estimate with; None for none.
        protocol: how defenses are judged.
        waived: rule (`rates`: at least two poison rates, `adaptive`: at least one adaptive attack) -> why this grid does without.
        published: numbers of others to show beside ours; see `Published`.
    """

    title: str
    datasets: tuple[str, ...]
    models: tuple[str, ...]
    threats: tuple[Threat, ...]
    defenses: tuple[str, ...]
    trainer: str = "plain"
    trainers: Mapping[str, str] = field(default_factory=dict)
    rates: tuple[float, ...] = (0.1, 0.05)
    seeds: tuple[int, ...] = (0,)
    images: int | None = None
    size: tuple[int, int] | None = None
    robustness: tuple[str, ...] = ()
    minutes: float | None = None
    protocol: Protocol = field(default_factory=Protocol)
    waived: Mapping[str, str] = field(default_factory=dict)
    published: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for name in ("datasets", "models", "threats", "defenses", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name} must hold at least one entry, got none")
        for dataset in self.trainers:
            if dataset not in self.datasets:
                raise ValueError(f"trainers must name data sets among {', '.join(self.datasets)}, got {dataset!r}")
        for rule in self.waived:
            if rule not in RULES:
                raise ValueError(f"waived must name rules among {', '.join(RULES)}, got {rule!r}")
        if len(set(self.rates)) < 2 and "rates" not in self.waived:
            raise ValueError(f"rates must hold at least two poison rates, or [waived] say why not, got {list(self.rates)}")


def read(path: Path, size: str | None = None) -> Plan:
    """The plan in a TOML file.

    Args:
        path: of the file.
        size: name of a table of it, such as `small`, whose entries take the place of those at the top.

    Raises:
        BadFile: no such file, or no TOML.
        BadSpec: an unknown size, an unknown entry (close ones are listed), or a value of the wrong type.
    """
    try:
        text = path.read_text("utf-8")
        table = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise BadFile(f"{path}: not a plan ({' '.join(str(error).split())[:160]})") from error
    sizes = {name: value for name, value in table.items() if isinstance(value, dict) and name not in _names(Plan)}
    if size is not None and size not in sizes:
        raise BadSpec(f"{path}: size {size!r} is unknown; {'known: ' + ', '.join(sizes) if sizes else 'the plan has no sizes'}")
    top = {name: value for name, value in table.items() if name not in sizes} | (sizes[size] if size else {})
    try:
        return _plan(top)
    except (TypeError, ValueError) as error:
        raise BadSpec(f"{path}: {error}") from error


def _plan(table: Mapping[str, Any]) -> Plan:
    threats = table.get("threats")
    if isinstance(threats, list):
        table = {**table, "threats": [{"method": each} if isinstance(each, str) else each for each in threats]}
    try:
        return TypeAdapter(Plan).validate_python(table)
    except ValidationError as error:
        raise BadSpec(_said(error.errors()[0])) from error


def _said(error: Any) -> str:
    """The first thing that is wrong, in one line."""
    place, given = ".".join(map(str, error["loc"])), error.get("input")
    if error["type"] == "unexpected_keyword_argument":
        known = _names({"threats": Threat, "protocol": Protocol}.get(str(error["loc"][0]), Plan) if len(error["loc"]) > 1 else Plan)
        close = difflib.get_close_matches(str(error["loc"][-1]), known, n=3)
        return f"no entry {place!r}; {'did you mean ' + ' or '.join(close) + '?' if close else 'known: ' + ', '.join(known)}"
    if error["type"] == "missing":
        return f"{place} must be given"
    if error["type"] == "value_error":
        return f"{place + ': ' if place else ''}{error['ctx']['error']}"
    return f"{place}: {error['msg'].lower()}, got {given!r}"


def _names(cls: type[Any]) -> list[str]:
    return [each.name for each in fields(cls)]
