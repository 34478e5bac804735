"""How long a cell will take, by what cells like it took before."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mithridate.bench.cell import Cell

GUESS = {"victim": 300.0, "judgment": 15.0}  # seconds, of a kind that was never done


class Estimator:
    """Medians over the cards there are, of the closest relatives that have any.

    Args:
        rows: cards as `Store.rows` gives them.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self.seen: dict[tuple[Any, ...], list[float]] = {}
        for row in rows:
            if row["status"] == "done" and "all" in row["seconds"]:
                self.learn(row["kind"], row["config"], row["seconds"]["all"])

    def learn(self, kind: str, config: Mapping[str, Any], seconds: float) -> None:
        """Take one finished cell into account."""
        for relative in (*_relatives(kind, config), (kind,)):
            self.seen.setdefault(relative, []).append(seconds)

    def seconds(self, cell: Cell) -> float:
        """What a cell will take."""
        trains = cell.config.get("role") == "trainer"  # about as long as whoever made the victim
        for relative in (*_relatives(cell.kind, cell.config), *(_relatives("victim", cell.config) if trains else ()), (cell.kind,)):
            if relative in self.seen:
                return statistics.median(self.seen[relative][-50:])
        return GUESS[cell.kind]


def _relatives(kind: str, config: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """From the closest to the farthest."""
    if kind == "victim":
        recipe = (config["dataset"], config["images"], config["model"], config["trainer"])
        yield (kind, *recipe, _name(config["attack"]))
        yield (kind, *recipe)
    else:
        place = (config["dataset"], config["model"])
        yield (kind, *place, config["defense"], config["evasion"])
        yield (kind, *place, config["defense"])
        yield (kind, _name(config["defense"]))
        yield (kind, config["role"])


def _name(spec: str | None) -> str | None:
    return spec if spec is None else spec.partition(":")[0]
