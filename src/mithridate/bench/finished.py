"""Which cells of a grid need not be done any more, and what can be read of those whose files are gone."""

from __future__ import annotations

from collections.abc import Sequence

from mithridate import methods
from mithridate.bench.cell import Cell
from mithridate.bench.store import Store
from mithridate.bench.victims import CARD, WEIGHTS
from mithridate.roles import Craft


def finished(cells: Sequence[Cell], store: Store) -> set[str]:
    """Keys of a store's cards, but for cells whose files are gone while a cell without a card still has to read them.

    So cards alone can be published and gone on from: a victim is trained again if a further defense wants to see it. A trainer does
    not: its data are poisoned again, and the judge reads the cards.

    Args:
        cells: of a plan, each after the ones it needs.
        store: where the cards are.
    """
    there, known = store.keys(), {cell.key: cell for cell in cells}
    for cell in reversed(cells):
        if cell.key not in there:
            needs = [known[key] for key in cell.needs.values() if key in there]
            there -= {need.key for need in needs if _gone(store, need) and not _card_will_do(cell, need)}
    return there


def lay_out(cell: Cell, store: Store) -> None:
    """Put the cards of what a cell needs where it reads files, if there are none."""
    for key in cell.needs.values():
        if not store.files(key).is_dir():
            store.read(key).write(store.files(key) / CARD)


def _gone(store: Store, cell: Cell) -> bool:
    kept = store.files(cell.key) / WEIGHTS if cell.kind == "victim" else store.files(cell.key)
    return not kept.exists() and store.read(cell.key).status != "failed"  # which leaves no files, and stays


def _card_will_do(reader: Cell, need: Cell) -> bool:
    """A trainer needs no weights; but a trigger that was made for them cannot be made alike everywhere."""
    attack = need.config["attack"]
    return reader.config["role"] == "trainer" and (attack is None or not isinstance(methods.parse(attack), Craft))
