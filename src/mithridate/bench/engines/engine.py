"""The interface of an engine: it takes cells and gives futures. Whoever schedules knows nothing else of it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mithridate.bench.cell import Cell
from mithridate.errors import BadSpec

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
    """Does cells, several at once; used in a `with` block, at whose end its workers are gone."""

    slots: int

    def submit(self, cells: Sequence[Cell]) -> Future[list[Receipt]]:
        """Do some cells, one after the other, and write their cards into the store; the future raises `Lost` if the worker died."""
        ...


def open_engine(name: str, store: Path, **options: Any) -> Engine:
    """An engine by name, with its own options; `local`: workers. `slurm`: workers, partition, cluster. `ray`: address, workers.

    Raises:
        BadSpec: an unknown name.
        MissingExtra: an engine whose package is not installed.
    """
    if name not in ENGINES:
        raise BadSpec(f"engine {name!r} is unknown; known: {', '.join(ENGINES)}")
    module = importlib.import_module(f"mithridate.bench.engines.{name}")
    engine: Engine = module.open_engine(store, **options)
    return engine
