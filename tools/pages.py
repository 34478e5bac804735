"""What all tables of the page of results are made of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def read_cards(folder: Path) -> list[dict[str, Any]]:
    """Every card of a folder, by name."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]


def share(value: float | Sequence[float] | None) -> str:
    """A share, with its interval if it has one."""
    if value is None:
        return "-"
    if isinstance(value, (int, float)):
        return f"{value:.1%}"
    share, low, high = value
    return f"{share:.1%} [{low:.1%}, {high:.1%}]"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table."""
    if not rows:
        yield "No card yet.\n"
        return
    yield "| " + " | ".join(heads) + " |"
    yield "| " + " | ".join("---" for _ in heads) + " |"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""
