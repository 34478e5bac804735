"""Doing the work of one cell: configuration and folders in, card and files out. It knows neither store nor engine."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mithridate import methods
from mithridate.bench import judgments, victims
from mithridate.bench.cell import Cell
from mithridate.bench.judgments.models import dead
from mithridate.bench.protocol import Protocol
from mithridate.card import Card
from mithridate.roles import Progress, silent

JUDGES: dict[str, Callable[[judgments.Case], judgments.Finding]] = {
    "none": judgments.undefended,
    "trainer": judgments.training,
    "screen": judgments.screening,
    "detector": judgments.detection,
    "inspector": judgments.inspection,
    "repair": judgments.repairing,
}


def perform(cell: Cell, inputs: Mapping[str, Path], out: Path, progress: Progress = silent) -> Card:
    """The card of a cell, and in the folder `out` the files that other cells read.

    Args:
        cell: what to do.
        inputs: key of each cell that it needs -> folder of that cell's files.
        out: folder for files; what a killed run left there is gone on from.
        progress: told how far it is.
    """
    peak: dict[str, int] = {}
    begun = time.perf_counter()
    with _measured(peak):
        card = victims.make(cell.config, out, progress) if cell.kind == "victim" else _judged(cell, inputs, out, progress)
    seconds = card.seconds | {"all": time.perf_counter() - begun}
    return replace(card, config=dict(cell.config), seconds=seconds, cost=card.cost | peak)


def failed(cell: Cell, reason: str, status: Any = "failed") -> Card:
    """The card of a cell that could not be done."""
    return Card(kind=cell.kind, config=dict(cell.config), metrics={}, status=status, reason=" ".join(reason.split())[:500])


def _judged(cell: Cell, inputs: Mapping[str, Path], out: Path, progress: Progress) -> Card:
    case = _case(cell, inputs, out, progress)
    reason = dead(case)
    if reason and cell.config["role"] != "none":
        return failed(cell, reason, "dead")
    found = JUDGES[cell.config["role"]](case)
    status: Any = "dead" if reason else "done"
    card = Card(
        kind="judgment",
        config=dict(cell.config),
        metrics=found.metrics,
        status=status,
        reason=reason,
        seconds=found.seconds,
        cost=found.cost,
        curves=found.curves,
    )
    if cell.config["role"] == "none":
        card.write(out / victims.CARD)
    return card


def _case(cell: Cell, inputs: Mapping[str, Path], out: Path, progress: Progress) -> judgments.Case:
    config, protocol = cell.config, Protocol(**cell.config["protocol"])
    folders = {name: inputs[key] for name, key in cell.needs.items()}
    victim = victims.load(folders["victim"], config)
    return judgments.Case(
        config=config,
        defense=None if config["role"] == "none" else methods.parse(config["defense"].rpartition("+")[2], config["role"]),
        victim=victim,
        twin=victims.load(folders["twin"], config) if "twin" in folders else victim,
        parts=protocol.split(victims.dataset_of(config).test, config["seed"]),
        protocol=protocol,
        before=Card.read(folders["undefended"] / victims.CARD) if "undefended" in folders else None,
        verdict=judgments.read_verdict(folders["inspection"]) if "inspection" in folders else None,
        out=out,
        progress=progress,
    )


@contextmanager
def _measured(peak: dict[str, int]) -> Iterator[None]:
    """The most memory in bytes that is used meanwhile, of the GPU where there is one."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        yield
        peak["peak_memory"] = torch.cuda.max_memory_allocated()
        return
    marks = Path("/proc/self/clear_refs")
    if marks.exists():  # Linux forgets the old peak on this word
        with suppress(OSError):  # inside some containers it may not
            marks.write_text("5")
    yield
    peak["peak_memory"] = _high_water()


def _high_water() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
