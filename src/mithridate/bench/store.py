"""The store: one JSON card a cell, and the files that other cells read. Merging two stores is copying files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from mithridate.card import Card
from mithridate.errors import BadFile

INDEX = ".index.jsonl"


class Store:
    """A folder of results, `cards/KK/KEY.json` and `files/KEY/`; everything else in it may be deleted at any time.

    Args:
        folder: made when the first card is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __repr__(self) -> str:
        return f"Store({self.folder}, {len(self.keys()):,} cards)"

    def card_path(self, key: str) -> Path:
        """Where the card of a cell is, or will be."""
        return self.folder / "cards" / key[:2] / f"{key}.json"

    def files(self, key: str) -> Path:
        """The folder of a cell's files."""
        return self.folder / "files" / key

    def __contains__(self, key: str) -> bool:
        path = self.card_path(key)
        return path.exists() and path.stat().st_size > 0

    def keys(self) -> set[str]:
        """Keys of every card there is, by a listing of the folders alone; a card that a power cut left empty is none."""
        return set(self._stamps())

    def read(self, key: str) -> Card:
        """One card.

        Raises:
            BadFile: there is none, or it is damaged.
        """
        path = self.card_path(key)
        try:
            return Card.read(path)
        except (OSError, ValueError, TypeError) as error:
            raise BadFile(f"{path}: not a card ({' '.join(str(error).split())[:120]})") from error

    def write(self, key: str, card: Card) -> None:
        """Write a card, atomically; from now on the cell is done.

        A power cut may undo this, as a cell can be done again: waiting for the disk would take longer than many a cell does.
        """
        card.write(self.card_path(key), durable=False)

    def forget(self, key: str) -> None:
        """Remove a card, so that its cell is done again; what lies in its folder is gone on from."""
        self.card_path(key).unlink(missing_ok=True)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every card as a plain table row with its `key`, sorted by key; curves are left out.

        Cards that were read before come from an index, which is brought up to date first.
        """
        stamps, index = self._stamps(), self.folder / INDEX
        known = {key: row for key, stamp, row in _lines(index) if stamps.get(key) == stamp}
        fresh = {key: self._row(key) for key in sorted(stamps.keys() - known.keys())}
        lines = [json.dumps([key, stamps[key], row], separators=(",", ":")) + "\n" for key, row in fresh.items()]
        with suppress(OSError), index.open("a", encoding="utf-8") as file:  # a store that can only be read is read again each time
            file.writelines(lines)
        known |= fresh
        yield from (known[key] for key in sorted(known))

    def merge(self, other: Store) -> int:
        """Copy the cards and files of another store that this one lacks; gives the number of cards copied."""
        missing = sorted(other.keys() - self.keys())
        for key in missing:
            card = other.read(key)  # refuses what is none, before anything is copied
            if other.files(key).is_dir():
                shutil.copytree(other.files(key), self.files(key), dirs_exist_ok=True)
            self.write(key, card)
        return len(missing)

    def _stamps(self) -> dict[str, str]:
        """Key of every card -> what changes when the card does."""
        cards = self.folder / "cards"
        places = [place.path for place in os.scandir(cards) if place.is_dir()] if cards.is_dir() else []
        entries = ((entry.name, entry.stat()) for place in places for entry in os.scandir(place))
        return {name[:-5]: f"{told.st_mtime_ns} {told.st_size}" for name, told in entries if _is_card(name) and told.st_size}

    def _row(self, key: str) -> dict[str, Any]:
        card = self.read(key)
        kept = {name: value for name, value in vars(card).items() if name != "curves"}
        return {"key": key, **kept}


def _is_card(name: str) -> bool:
    return name.endswith(".json") and name[0] != "."


def _lines(index: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Key, stamp and row of every line of the index; one that a kill cut short is skipped."""
    if not index.exists():
        return
    with index.open(encoding="utf-8") as file:
        for line in file:
            with suppress(ValueError, TypeError):
                key, stamp, row = json.loads(line)
                yield str(key), str(stamp), row
