"""The card beside a weights file: what the weights are for."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mithridate.errors import BadFile, UnsafeFile

MAX_CARD = 1 << 20


def read_card(path: Path) -> dict[str, Any]:
    """The card beside a weights file, `<stem>.json` or `<stem>.toml`; empty when there is none.

    Raises:
        BadFile: it is not a table, or `arch`, `classes`, `input`, `mean` or `std` make no sense.
        UnsafeFile: it names code to run as its architecture.
    """
    for suffix in (".json", ".toml"):
        card = path.with_suffix(suffix)
        if card.is_file():
            return check_card(card, parse_card(card))
    return {}


def parse_card(card: Path) -> Any:
    """What a JSON or TOML file of bounded size holds.

    Raises:
        BadFile: too large or not readable.
    """
    if card.stat().st_size > MAX_CARD:
        raise BadFile(f"{card}: a card of {card.stat().st_size} bytes, more than {MAX_CARD}")
    try:
        text = card.read_text(encoding="utf-8")
        return json.loads(text) if card.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(f"{card}: not a readable card: {' '.join(str(error).split())[:120]}") from error


def check_card(path: Path, card: Any) -> dict[str, Any]:
    """The same card, if what it says makes sense.

    Raises:
        BadFile, UnsafeFile: as for `read_card`.
    """
    if not isinstance(card, dict):
        raise BadFile(f"{path}: a card must be a table, got {type(card).__name__}")
    checks: dict[str, Callable[[Any], bool]] = {
        "arch": lambda value: isinstance(value, str),
        "classes": _is_classes,
        "input": lambda value: _is_list(value, int) and len(value) == 3 and all(0 < n <= 4096 for n in value),
        "mean": lambda value: _is_list(value, int, float),
        "std": lambda value: _is_list(value, int, float) and all(number > 0 for number in value),
    }
    if ".py:" in str(card.get("arch", "")):
        raise UnsafeFile(f"{path}: asks to run {str(card['arch'])[:80]!r}, which only the user can, as --arch")
    for key, fine in checks.items():
        if key in card and not fine(card[key]):
            raise BadFile(f"{path}: {key} makes no sense: {str(card[key])[:80]}")
    return card


def _is_classes(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) > 1 and _is_list(value, str)
    return type(value) is int and 1 < value <= 1_000_000


def _is_list(value: Any, *kinds: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kinds) and not isinstance(item, bool) for item in value)
