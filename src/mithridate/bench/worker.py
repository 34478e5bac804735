"""What runs in a worker: cells one after the other, each leaving a card whatever happens to it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mithridate.bench.cell import Cell
from mithridate.bench.engines.engine import Lost, Receipt
from mithridate.bench.perform import failed, perform
from mithridate.bench.processes import devices, together
from mithridate.bench.store import Store
from mithridate.card import Card
from mithridate.files import write_atomic


def work(folder: Path, cells: Sequence[Cell]) -> list[Receipt]:
    """Do cells whose needs are in the store in this folder, and write their cards there.

    Raises:
        Lost: one of several processes of a cell died.
    """
    store = Store(folder)
    return [_done(store, cell) for cell in cells]


def _done(store: Store, cell: Cell) -> Receipt:
    begun = time.perf_counter()
    card = attempt(cell, {key: store.files(key) for key in cell.needs.values()}, store.files(cell.key))
    store.write(cell.key, card)
    return Receipt(cell.key, card.status, card.reason, time.perf_counter() - begun)


def attempt(cell: Cell, inputs: Mapping[str, Path], out: Path) -> Card:
    """The card of a cell; one that fails gets a card that says why.

    Raises:
        Lost: one of several processes of the cell died.
    """
    try:
        return perform(cell, inputs, out) if devices(cell) == 1 else together(cell, inputs, out)
    except Lost:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the other cells of a grid must not suffer
        return failed(cell, f"{type(error).__name__}: {error}")


def pack(folder: Path) -> dict[str, bytes]:
    """Every file of a folder: name -> content; empty where there is no folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unpack(files: Mapping[str, bytes], folder: Path) -> None:
    """Write what `pack` took, each file atomically."""
    for name, content in files.items():
        write_atomic(folder / name, content)
