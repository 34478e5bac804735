"""The processes of a worker: none outlives its parent, and a trainer with `devices` gets as many as it asks for."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, spawn

from mithridate import methods
from mithridate.bench.cell import Cell
from mithridate.bench.engines.engine import Lost
from mithridate.bench.perform import perform
from mithridate.card import Card


def die_with(parent: int, every: float = 1.0) -> None:
    """End this process soon after its parent is gone, however that went, so that no orphan goes on computing."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def devices(cell: Cell) -> int:
    """How many GPUs, or processes on a CPU, a cell trains on together."""
    config = cell.config
    specs = (config["attack"], config["trainer"]) if cell.kind == "victim" else (config["defense"].rpartition("+")[2],)
    return max(_devices(spec) for spec in specs)


@functools.cache
def _devices(spec: str | None) -> int:
    return 1 if spec in (None, "none") else int(getattr(methods.parse(spec), "devices", 1))


def together(cell: Cell, inputs: Mapping[str, Path], out: Path) -> Card:
    """The card of a cell that several processes do together; the first of them writes the files.

    Fabric would run the script of this process once more for each device, but a worker's script is not the cell's; so all are
    started here, and Fabric finds them there.

    Raises:
        Lost: a process died.
        RuntimeError: one failed; the text says why.
    """
    count = devices(cell)
    with tempfile.TemporaryDirectory(prefix="mithridate-") as scratch:
        told = Path(scratch) / "card.json"
        world = {"WORLD_SIZE": str(count), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        try:
            spawn(_rank, (_Team(os.getpid(), world, told), cell, inputs, out), nprocs=count)
        except ProcessRaisedException as error:
            raise RuntimeError(str(error).strip().splitlines()[-1]) from error
        except ProcessExitedException as error:
            raise Lost(f"one of {count} processes died with exit code {error.exit_code}") from error
        return Card.read(told)


@dataclass(frozen=True)
class _Team:
    """What the processes of a cell have in common: their parent, how they find each other, and where the card goes."""

    parent: int
    world: Mapping[str, str]
    told: Path


def _rank(rank: int, team: _Team, cell: Cell, inputs: Mapping[str, Path], out: Path) -> None:
    die_with(team.parent)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        del os.environ[name]  # or Fabric would look for the processes of a SLURM job
    os.environ.update({**team.world, "LOCAL_RANK": str(rank)})
    torch.set_num_threads(1)
    if rank:
        own = team.told.with_name(str(rank))
        if out.exists():
            shutil.copytree(out, own)  # with the checkpoint; no process gets so far that it writes one before all are there
        out = own
    card = perform(cell, inputs, out)
    if not rank:
        card.write(team.told)
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])
