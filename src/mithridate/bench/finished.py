"""Which cells of a grid need not be done any more."""

from __future__ import annotations

from collections.abc import Sequence

from mithridate.bench.cell import Cell
from mithridate.bench.store import Store


def finished(cells: Sequence[Cell], store: Store) -> set[str]:
    """Keys of a store's cards, but for cells whose files are gone while a cell without a card still has to read them.

    So cards alone can be published and gone on from: a victim is trained again if a further defense wants to see it.

    Args:
        cells: of a plan, each after the ones it needs.
        store: where the cards are.
    """
    there = store.keys()
    for cell in reversed(cells):
        if cell.key not in there:
            there -= {key for key in cell.needs.values() if key in there and _gone(store, key)}
    return there


def _gone(store: Store, key: str) -> bool:
    return not store.files(key).is_dir() and store.read(key).status != "failed"  # which leaves no files, and stays
