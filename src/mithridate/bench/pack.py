"""A grid for a machine without a network: code, images and plan in one archive, in parts that fit through narrow doors."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mithridate
from mithridate import datasets
from mithridate.bench.cell import Cell
from mithridate.bench.store import Store
from mithridate.datasets import DATASETS
from mithridate.files import claim, write_atomic

PART = 60 * 10**6  # bytes
GO = """#!/usr/bin/env bash
# Runs the packed grid for at most MINUTES (default 9) and leaves its cards in ./store; run it again to go on.
set -euo pipefail
cd "$(dirname "$0")"
export PYTHONPATH="$PWD/src" MITHRIDATE_DATA="$PWD/data" OMP_NUM_THREADS=1
exec python -c 'from mithridate.cli.main import main; main()' bench run plan.toml {flags} --store store --minutes "${{1:-9}}" "${{@:2}}"
"""


def pack(plan: Path, cells: Sequence[Cell], store: Store, out: Path, flags: str = "") -> list[Path]:
    """Write `pack.000`, `pack.001`, ... of at most 60 MB: `cat pack.* | tar x && bash go.sh MINUTES` runs the grid there.

    Victims that are done here go along, so that nothing is trained twice; the cards that come back are merged into the store.

    Args:
        plan: the TOML file of the grid.
        cells: its cells.
        store: what is done already.
        out: folder for the parts.
        flags: what `bench run` shall be given beside the plan, such as `--size paper`.

    Raises:
        OSError: the folder cannot be written to.
        ValueError: a data set of one's own, which the other machine would not find.
    """
    claim(out)
    for stale in out.glob("pack.[0-9][0-9][0-9]"):
        stale.unlink()
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, data in _contents(plan, cells, store, flags):
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    parts = []
    for i, start in enumerate(range(0, whole.tell(), PART)):
        parts.append(out / f"pack.{i:03d}")
        write_atomic(parts[-1], bytes(whole.getbuffer()[start : start + PART]))
    return parts


def _contents(plan: Path, cells: Sequence[Cell], store: Store, flags: str) -> Iterator[tuple[str, bytes]]:
    yield "go.sh", GO.format(flags=flags).encode()
    yield "plan.toml", plan.read_bytes()
    package = Path(mithridate.__file__).parent
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"src/mithridate/{path.relative_to(package).as_posix()}", path.read_bytes()
    for name in dict.fromkeys(cell.config["dataset"] for cell in cells):
        if name not in DATASETS:
            raise ValueError(f"datasets must be public ones to be packed, got {name!r}")
        if DATASETS[name].remotes:  # the others come with the package
            yield f"data/{name}.npz", _images(name)
    for cell in cells:
        if cell.key in store:
            yield f"store/cards/{cell.key[:2]}/{cell.key}.json", store.card_path(cell.key).read_bytes()
            for path in sorted(store.files(cell.key).rglob("*")):
                if path.is_file():
                    yield f"store/files/{cell.key}/{path.relative_to(store.files(cell.key)).as_posix()}", path.read_bytes()


def _images(name: str) -> bytes:
    """A data set as one `.npz`, which `MITHRIDATE_DATA` may hold in place of the published files."""
    found, buffer = datasets.load(name), io.BytesIO()
    arrays = {"x_train": found.train.images, "y_train": found.train.labels, "x_test": found.test.images, "y_test": found.test.labels}
    laid_out: dict[str, Any] = {key: (each.movedim(1, -1) if each.ndim == 4 else each).cpu().numpy() for key, each in arrays.items()}
    np.savez_compressed(buffer, **laid_out)
    return buffer.getvalue()
