"""Victims that `mithridate infect` made before, taken in place of training them again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mithridate import infect
from mithridate.bench.cell import Cell
from mithridate.bench.store import Store
from mithridate.bench.victims import dataset_of, draw, plan_of
from mithridate.card import Card
from mithridate.errors import BadFile
from mithridate.roles import Progress, silent


def adopt(cells: Sequence[Cell], store: Store, folder: Path, progress: Progress = silent) -> list[str]:
    """Copy those victims below a folder that are, setting for setting, what a cell without a card asks for.

    Their cards keep the commit they were made at. That the attack's code has not changed since is the caller's word.

    Raises:
        BadFile: the folder holds no victim at all.

    Returns:
        The keys of the cells that are done now.
    """
    made = [(path.parent, Card.read(path)) for path in sorted(folder.glob("*/card.json"))]
    if not made:
        raise BadFile(f"{folder}: no victim of mithridate infect in it")
    adopted = []
    wanted = [cell for cell in cells if cell.kind == "victim" and cell.key not in store]
    for i, cell in enumerate(wanted):
        dataset = dataset_of(cell.config)
        asked = infect.config(plan_of(cell.config), dataset)
        for place, card in made:
            if card.config == asked:
                shutil.copytree(place, store.files(cell.key), dirs_exist_ok=True)
                draw(store.files(cell.key), dataset.test)
                seconds = card.seconds | {"all": sum(card.seconds.values())}
                store.write(cell.key, replace(card, config=dict(cell.config), seconds=seconds))
                adopted.append(cell.key)
                break
        progress("looking for victims", i + 1, len(wanted))
    return adopted
