"""What runs in a worker: cells one after the other, each leaving a card whatever happens to it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from mithridate.bench.cell import Cell
from mithridate.bench.engines.engine import Receipt
from mithridate.bench.perform import failed, perform
from mithridate.bench.store import Store
from mithridate.card import Card


def work(folder: Path, cells: Sequence[Cell]) -> list[Receipt]:
    """Do cells whose needs are in the store, and write their cards there."""
    store = Store(folder)
    return [_done(store, cell) for cell in cells]


def _done(store: Store, cell: Cell) -> Receipt:
    begun = time.perf_counter()
    card = attempt(cell, store)
    store.write(cell.key, card)
    return Receipt(cell.key, card.status, card.reason, time.perf_counter() - begun)


def attempt(cell: Cell, store: Store) -> Card:
    """The card of a cell; one that fails gets a card that says why."""
    try:
        return perform(cell, {key: store.files(key) for key in cell.needs.values()}, store.files(cell.key))
    except Exception as error:  # noqa: BLE001 - whatever it is, the other cells of a grid must not suffer
        return failed(cell, f"{type(error).__name__}: {error}")


def die_with(parent: int, every: float = 1.0) -> None:
    """End this process soon after its parent is gone, however that went, so that no orphan goes on computing."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
