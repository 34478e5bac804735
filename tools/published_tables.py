"""Numbers of other people that a plan lists, beside ours, for the page of results."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mithridate import methods
from mithridate.bench import read
from mithridate.report.grid_published import beside, published
from mithridate.report.grid_rows import Cards, cards
from pages import table


def others(plan: Path, rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A row a number of others, with our cells that come closest; what differs is said. Nothing where the plan lists none."""
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
    """The mean over the cards that came to a result: of each variant of the defense by itself, named where there are several."""
    variants: dict[str, list[float]] = {}
    for row in rows:
        if row["status"] == "done" and metric in row["metrics"]:
            value = row["metrics"][metric]
            variants.setdefault(row["config"]["defense"], []).append(value[0] if isinstance(value, list) else value)
    means = {name: f"{statistics.fmean(of):.3f}" + (f" (n = {len(of)})" if len(of) > 1 else "") for name, of in variants.items()}
    if len(means) < 2:
        return "".join(means.values()) or "-"
    return "; ".join(f"{mean} `{methods.brief(name)}`" for name, mean in sorted(means.items()))
