"""The store: one JSON card a cell, and the files that other cells read. Merging two stores is copying files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
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
        cards = self.folder / "cards"
        if not cards.is_dir():
            return set()
        found: set[str] = set()
        for place in os.scandir(cards):
            if place.is_dir():
                found.update(entry.name[:-5] for entry in os.scandir(place.path) if _is_card(entry))
        return found

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
        there, index = self.keys(), self.folder / INDEX
        known = {row["key"]: row for row in _lines(index) if row.get("key") in there}
        fresh = [self._row(key) for key in sorted(there - known.keys())]
        if fresh and self.folder.is_dir():
            with index.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row, separators=(",", ":")) + "\n" for row in fresh)
        known |= {row["key"]: row for row in fresh}
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

    def _row(self, key: str) -> dict[str, Any]:
        card = self.read(key)
        kept = {name: value for name, value in vars(card).items() if name != "curves"}
        return {"key": key, **kept}


def _is_card(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(".json") and entry.name[0] != "." and entry.stat().st_size > 0


def _lines(index: Path) -> Iterator[dict[str, Any]]:
    """What the index holds; a line that a kill cut short is skipped."""
    if not index.exists():
        return
    with index.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                continue
