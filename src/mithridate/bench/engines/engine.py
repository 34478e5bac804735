"""The interface of an engine: it takes cells and gives futures. Whoever schedules knows nothing else of it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mithridate.bench.cell import Cell
from mithridate.errors import BadSpec, MissingExtra

ENGINES = ("local", "slurm", "ray")


class Lost(Exception):
    """The worker of some cells died before their cards were written: they can be tried again."""


@dataclass(frozen=True)
class Receipt:
    """A finished cell: how its card begins, so that nobody has to read it again.

    Attributes:
        key: of the cell.
        status: of the card.
        reason: of the card.
        seconds: that the cell took.
    """

    key: str
    status: str
    reason: str
    seconds: float


class Engine(AbstractContextManager["Engine"], Protocol):
    """Does cells, several at once; used in a `with` block, at whose end its workers are gone.

    Attributes:
        slots: submissions that it works on at once; more are not made.
        handful: seconds of work that make a submission worth its overhead; cells that take less come several at once.
    """

    slots: int
    handful: float

    def submit(self, cells: Sequence[Cell]) -> Future[list[Receipt]]:
        """Do some cells, one after the other, and write their cards into the store; the future raises `Lost` if the worker died."""
        ...


def open_engine(name: str, store: Path, **options: Any) -> Engine:
    """An engine by name, with its own options.

    `local` takes workers; `slurm` workers, partition, minutes, gpus, cluster; `ray` address, workers, gpus.

    Raises:
        BadSpec: an unknown name or option, or a cluster that does not answer.
        MissingExtra: an engine whose package is not installed.
        ValueError: an option out of its range.
    """
    if name not in ENGINES:
        raise BadSpec(f"engine {name!r} is unknown; known: {', '.join(ENGINES)}")
    module = importlib.import_module(f"mithridate.bench.engines.{name}")
    known = list(inspect.signature(module.open_engine).parameters)[1:]
    for option, value in options.items():
        if option not in known:
            raise BadSpec(f"engine {name} has no option {option!r}, got {value!r}; known: {', '.join(known)}")
    engine: Engine = module.open_engine(store, **options)
    return engine


def package(name: str) -> Any:
    """A package of the `grid` extra.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtra(name, "grid") from error


def check(option: str, value: float | None, least: float) -> None:
    """Refuse a number that is too small; None means that nothing was said.

    Raises:
        ValueError: naming the option and its value.
    """
    if value is not None and not value >= least:
        raise ValueError(f"{option} must be at least {least:g}, got {value}")
