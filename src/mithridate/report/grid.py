"""The page of a grid: every card in one HTML file, which a browser filters, compares and draws without any network."""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from mithridate.report.charted import charted
from mithridate.report.grid_columns import Pack
from mithridate.report.grid_labels import claims, short, threats
from mithridate.report.grid_measures import measures
from mithridate.report.grid_published import Published, beside
from mithridate.report.grid_rows import PLACE, STATUSES, Cards, Row, cards, distinct
from mithridate.report.words import plural

SCRIPTS = (  # one after another, in one module
    "charts.js", "grid_data.js", "grid_state.js", "grid_stats.js", "grid_show.js", "grid_pen.js", "grid_map.js", "grid_pointer.js",
    "grid_charts.js", "grid_tradeoff.js", "grid_numbers.js", "grid_panel.js", "grid_table.js", "grid_sheets.js",
    "grid_standings.js", "grid_method.js", "grid.js",
)  # fmt: skip
CURVES = 2000  # cards whose curves are in the page
PICTURES = 200
PICTURE_BYTES = 150_000
PNG = b"\x89PNG\r\n\x1a\n"


def _no_curves(key: str) -> Mapping[str, Any]:
    return {}


def _no_picture(key: str) -> bytes | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What a page is made of.

    Attributes:
        title: of the page.
        rows: cards of victims and judgments, as a store gives them.
        planned: `kind` and `config` of every cell of the plan; None for none: then all cards are shown and nothing is missing.
        published: other people's numbers.
        written: key -> seconds since 1970 at which the card was written, as far as that is known.
        curves: key -> the card's curves, by name: points (x, y) or values.
        picture: key of a victim -> a PNG of what its trigger looks like, if there is one.
    """

    title: str
    rows: Sequence[Row]
    planned: Sequence[Row] | None = None
    published: Sequence[Published] = ()
    written: Mapping[str, float] = field(default_factory=dict)
    curves: Callable[[str], Mapping[str, Any]] = _no_curves
    picture: Callable[[str], bytes | None] = _no_picture


@dataclass(frozen=True)
class Page:
    """A page, and what is on it: status -> cells, and how many cards were left out."""

    html: str = field(repr=False)
    counts: dict[str, int]
    older: int
    unplanned: int


def render(grid: Grid) -> Page:
    """The page of a grid.

    Raises:
        BadFile: a row that is no card of a grid.
    """
    found = cards(grid.rows, grid.planned, grid.written)
    counts = {status: found.count(status) for status in STATUSES}
    html = charted(
        "grid.html.j2",
        SCRIPTS,
        ("style.css", "grid.css"),
        _data(grid, found),
        title=grid.title,
        scope=_scope(found),
        counts=counts,
        facts=_facts(found, grid.written),
        older=found.older,
        unplanned=found.unplanned,
    )
    return Page(html, counts, found.older, found.unplanned)


def _data(grid: Grid, found: Cards) -> str:
    """Everything the scripts work on, packed."""
    pack, fields = Pack(), found.fields
    rows, places = threats(found)
    specs, defenses = distinct(fields["defense"])
    numbers = {part: pack.numbers(found.rows, part) for part in ("metrics", "seconds", "cost")}
    header = {
        "count": len(found.rows),
        "title": grid.title,
        "fields": {name: pack.texts(texts) for name, texts in fields.items()},
        "keys": pack.keys([row["key"] for row in found.rows]),
        "threats": [asdict(each) for each in rows],
        "threat": pack.codes(places),
        "victim": pack.codes(_victims(found)),
        "numbers": numbers,
        "measures": measures(numbers["metrics"]),
        "names": short(spec for spec in specs if spec),
        "claims": claims([*specs, *(each.spec for each in rows)]),
        "published": beside(grid.published, found, places, defenses),
        "planned": grid.planned is not None,
        "curves": _curves(grid, found),
        "pictures": _pictures(grid, found),
    }
    return pack.packed(header)


def _victims(found: Cards) -> list[int]:
    """For each card, the row of the victim it is of, counted from 1; 0 for none."""
    places = list(zip(*(found.fields[name] for name in PLACE), strict=True))
    made = {place: i for i, (place, kind) in enumerate(zip(places, found.fields["kind"], strict=True), 1) if kind == "victim"}
    return [made.get(place, 0) for place in places]


def _curves(grid: Grid, found: Cards) -> dict[int, Any]:
    """Row -> its curves, of at most `CURVES` cards, those with the first seeds."""
    drawn = [i for i, role in enumerate(found.fields["role"]) if role in ("detector", "inspector") and found.fields["status"][i] == "done"]
    drawn.sort(key=lambda i: found.fields["seed"][i])
    read = ((i, grid.curves(found.rows[i]["key"])) for i in drawn[:CURVES])
    return {i: {name: _rounded(values) for name, values in curves.items()} for i, curves in read if curves}


def _rounded(values: Any) -> Any:
    if isinstance(values, (list, tuple)):
        return [_rounded(each) for each in values]
    return float(f"{values:.5g}") if isinstance(values, (int, float)) and math.isfinite(values) else None


def _pictures(grid: Grid, found: Cards) -> dict[int, str]:
    """Row of a victim -> its picture, as base64; of at most `PICTURES` small ones."""
    made: dict[int, str] = {}
    for i, row in enumerate(found.rows):
        data = grid.picture(row["key"]) if row["kind"] == "victim" and row["key"] and len(made) < PICTURES else None
        if data is not None and data.startswith(PNG) and len(data) <= PICTURE_BYTES:
            made[i] = base64.b64encode(data).decode()
    return made


def _scope(found: Cards) -> str:
    """What the grid is about, in a line."""
    counts = {name: len(set(filter(None, found.fields[name]))) for name in ("defense", "attack", "evasion", "seed")}
    defenses = counts["defense"] - ("none" in found.fields["defense"])
    against = [plural(counts[name], name) for name in ("attack", "evasion") if counts[name]] or ["nothing"]
    places = [", ".join(distinct(sorted(found.fields[name]))[0]) for name in ("dataset", "model")]
    return " · ".join([f"{plural(defenses, 'defense')} against {' and '.join(against)}", *places, plural(counts["seed"], "seed")])


def _facts(found: Cards, written: Mapping[str, float]) -> dict[str, str]:
    """Where the numbers come from."""
    rows = [row for row in found.rows if row["key"]]
    versions: dict[str, list[str]] = {}
    for text in distinct(found.fields["versions"])[0]:
        for name, version in json.loads(text).items():
            if version not in versions.setdefault(name, []):
                versions[name].append(version)
    told = {"hardware": _told(row.get("hardware") for row in rows), "code": _told(row.get("commit") for row in rows)}
    told |= {name: ", ".join(map(str, values)) for name, values in versions.items()}
    days = sorted(datetime.fromtimestamp(written[row["key"]], UTC).date().isoformat() for row in rows if row["key"] in written)
    return {"cards written": " to ".join(dict.fromkeys((days[0], days[-1])))} | told if days else told


def _told(values: Any) -> str:
    """Different values, the most frequent first, with how many cards each has where there are several."""
    counts = Counter(str(value) for value in values if value).most_common()
    return counts[0][0] if len(counts) == 1 else ", ".join(f"{value} ({count:,} cards)" for value, count in counts)
