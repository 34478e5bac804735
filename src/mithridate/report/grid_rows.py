"""The cards of a grid, checked and each cell once, as columns of text; with the cells of a plan that have no card yet."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mithridate.errors import BadFile
from mithridate.report.words import printable

PLACE = ("dataset", "images", "model", "trainer", "attack", "dose", "seed")  # what a victim is
JUDGED = ("defense", "role", "evasion", "robustness", "protocol")  # what else a judgment is
THREAT = ("dataset", "images", "model", "trainer", "attack", "dose", "evasion", "robustness", "protocol")  # a row of the heat map
CELL = {"victim": PLACE, "judgment": PLACE + JUDGED}  # kind of card -> what makes it a cell of its own
STATUSES = ("done", "dead", "failed", "missing")
ORDER = ("kind", "dataset", "model", "images", "trainer", "attack", "rate", "dose", "evasion", "role", "defense", "seed")

REST = ("robustness", "protocol", "status", "reason", "versions", "hardware", "commit")

Row = Mapping[str, Any]
Texts = dict[str, str]


@dataclass(frozen=True, eq=False)
class Cards:
    """The cards that a page shows, one a cell.

    Attributes:
        rows: as the store gave them, sorted; a cell of the plan without a card has the status `missing` and no key.
        fields: name -> text of every row; empty where the row has no such field.
        older: cards left out because a later one is of the same cell.
        unplanned: cards left out because the plan has no such cell.
    """

    rows: list[Row]
    fields: dict[str, list[str]] = field(repr=False)
    older: int = 0
    unplanned: int = 0

    def count(self, status: str) -> int:
        """How many cells came to a status."""
        return self.fields["status"].count(status)


def cards(rows: Iterable[Row], planned: Sequence[Row] | None = None, written: Mapping[str, float] | None = None) -> Cards:
    """The newest card of every cell.

    Args:
        rows: as a store gives them.
        planned: `kind` and `config` of every cell of a plan; None where there is no plan, and all cards are shown.
        written: key -> when the card was written; without it, the last of several cards of one cell counts.

    Raises:
        BadFile: a row that is no card of a grid.
    """
    wanted = None if planned is None else {_cell(row, _texts(row)): row for row in planned}
    newest: dict[tuple[str, ...], tuple[Row, Texts]] = {}
    seen = unplanned = 0
    for row in rows:
        _check(row)
        texts = _texts(row)
        cell = _cell(row, texts)
        if wanted is not None and cell not in wanted:
            unplanned += 1
            continue
        seen += 1
        if cell not in newest or _when(row, written) >= _when(newest[cell][0], written):
            newest[cell] = row, texts
    missing = [_missing(row) for cell, row in (wanted or {}).items() if cell not in newest]
    found = [*newest.values(), *((row, _texts(row)) for row in missing)]
    found.sort(key=lambda each: [each[1][name] for name in ORDER])
    fields = {name: [texts[name] for _, texts in found] for name in (*ORDER, *REST)}
    return Cards([row for row, _ in found], fields, seen - len(newest), unplanned)


def distinct(values: Sequence[str]) -> tuple[list[str], list[int]]:
    """The different values in the order they come in, and the place of each value among them."""
    places: dict[str, int] = {}
    codes = [places.setdefault(value, len(places)) for value in values]
    return list(places), codes


def _check(row: Row) -> None:
    """Refuse what is no card of a grid, whatever it is."""
    key = row.get("key")
    if not (isinstance(key, str) and len(key) == 24 and set(key) <= set("0123456789abcdef")):
        raise BadFile(f"card {key!r}: its key must be 24 hex digits")
    if row.get("kind") not in CELL:
        raise BadFile(f"card {key}: not of a grid: kind must be victim or judgment, got {row.get('kind')!r}")
    if row.get("status") not in STATUSES[:3]:
        raise BadFile(f"card {key}: damaged: status must be done, dead or failed, got {row.get('status')!r}")
    for name in ("config", "metrics", "seconds", "cost", "versions"):
        if not isinstance(row.get(name), Mapping):
            raise BadFile(f"card {key}: damaged: {name} must be a table, got {row.get(name)!r}")
    for name in CELL[row["kind"]]:
        if name not in row["config"]:
            raise BadFile(f"card {key}: damaged: config has no {name}")


def _texts(row: Row) -> Texts:
    """Every field of a card as text."""
    config = row["config"]
    dose = config.get("dose")
    texts = {name: _text(config.get(name)) for name in CELL["judgment"]}
    texts |= {name: _text(row.get(name)) for name in ("kind", "status", "reason", "versions", "hardware", "commit")}
    texts["rate"] = _text(dose.get("rate") if isinstance(dose, Mapping) else None)
    return texts


def _cell(row: Row, texts: Texts) -> tuple[str, ...]:
    """What every card of one and the same cell agrees in."""
    return (row["kind"], *(texts[name] for name in CELL[row["kind"]]))


def _when(row: Row, written: Mapping[str, float] | None) -> float:
    return (written or {}).get(row["key"], 0.0)


def _missing(row: Row) -> Row:
    empty: dict[str, Any] = {"metrics": {}, "seconds": {}, "cost": {}, "versions": {}}
    return {"key": "", "kind": row["kind"], "config": row["config"], "status": "missing", "reason": "no card yet", **empty}


def _text(value: Any) -> str:
    """A value as the page writes it; nothing at all for None."""
    if isinstance(value, str):
        return _printable(value)
    return "" if value is None else _encode(value)


_encode = json.JSONEncoder(sort_keys=True).encode
_printable = functools.lru_cache(maxsize=100_000)(printable)
