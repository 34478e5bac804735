"""Numbers of other people that a plan lists, beside ours, for the page of results."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mithridate.bench import read
from mithridate.report.grid_published import beside, published
from mithridate.report.grid_rows import Cards, cards
from pages import table


def others(plan: Path, rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A row a number of others, with the mean of our cells that come closest; what differs is said. Nothing where the plan lists none."""
    numbers = published(read(plan).published) if plan.exists() else []
    if not numbers:
        return
    ours = cards(rows)
    found = beside(numbers, ours, range(len(ours.rows)), [0] * len(ours.rows))
    yield "Numbers of others, and our cells that come closest to each\n"
    heads = ["who", "data", "model", "attack", "rate", "defense", "what", "theirs", "ours", "but"]
    yield from table(heads, [_row(each, ours) for each in found])


def _row(number: Mapping[str, Any], ours: Cards) -> list[str]:
    attack, rate = number["attack"], number["rate"]
    threat = ["none" if attack is None else f"`{attack}`", "-" if rate is None else f"{rate:g}"]
    who = f"{number['paper']}, {number['source']} ({number['where']})"
    mine = [ours.rows[card] for card, _ in number["cells"]]
    said = [f"`{number['defense']}`", number["metric"].replace("_", " "), f"{number['value']:.3f}", _ours(mine, number["metric"])]
    return [who, number["dataset"], number["model"], *threat, *said, ", ".join(number["differs"]) or "-"]


def _ours(rows: Iterable[Mapping[str, Any]], metric: str) -> str:
    """The mean over cards, of each variant of the defense and seed, that came to a result."""
    values = [row["metrics"][metric] for row in rows if row["status"] == "done" and metric in row["metrics"]]
    shares = [value[0] if isinstance(value, list) else value for value in values]
    if not shares:
        return "-"
    return f"{statistics.fmean(shares):.3f}" + (f" (n = {len(shares)})" if len(shares) > 1 else "")
