"""A Ray cluster: cells are tasks, and what a cell reads travels to its node, wherever that is."""

from __future__ import annotations

import functools
import logging
import os
import socket
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from mithridate.bench.cell import Cell
from mithridate.bench.engines.engine import Lost, Receipt, check, package
from mithridate.bench.engines.local import affordable
from mithridate.bench.processes import devices
from mithridate.bench.store import Store
from mithridate.bench.worker import pack, unpack, work
from mithridate.card import Card
from mithridate.errors import BadSpec

Done = tuple[Receipt, Card, dict[str, bytes]]
READS = 4  # cells that one cell reads at most


def open_engine(store: Path, address: str | None = None, workers: int | None = None, gpus: float | None = None) -> Ray:
    """A Ray cluster, or one of this machine's processes where no address is given.

    The nodes need mithridate and, under their own MITHRIDATE_DATA, the data sets; they need not see the store. A process that is
    connected to Ray already, with a `runtime_env` of its own for example, stays so and uses that cluster.

    Args:
        store: folder that the cards go to; only this process writes there.
        address: of the cluster, such as `auto` or `10.0.0.1:6379`; None for RAY_ADDRESS, or else a new cluster on this machine.
        workers: cells at once; None for as many as the cluster has GPUs, or else processors. More make an autoscaler add nodes.
        gpus: of each cell, a share such as 0.5 included; None for one where the cluster has any. A trainer with `devices` gets
            so many times as much.

    Raises:
        BadSpec: no cluster answers at the address.
        MissingExtra: Ray is not installed.
        ValueError: an option out of its range.
    """
    check("workers", workers, 1)
    check("gpus", gpus, 0)
    ray = package("ray")
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, address or os.environ.get("RAY_ADDRESS") or "local", workers)
    there = ray.cluster_resources()
    each = float("GPU" in there) if gpus is None else gpus
    return Ray(store, ray, workers or max(1, int(there.get("GPU", 0) / each if each else there.get("CPU", 1))), each, ours=ours)


def _connect(ray: Any, address: str, workers: int | None) -> None:
    logging.getLogger("ray").setLevel(logging.ERROR)  # it announces itself and its documentation
    options: dict[str, Any] = {"configure_logging": False, "log_to_driver": False}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a new cluster would tell its makers of itself
        options |= {"num_cpus": workers or affordable(), "include_dashboard": False}
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if port.isdigit():  # Ray itself would look for it for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address, **options)
    except (OSError, ValueError) as error:
        raise BadSpec(f"address {address!r}: no Ray cluster answers ({_line(error)})") from error


class Ray:
    """Tasks of a connected Ray cluster.

    Args:
        store: folder that the cards go to.
        ray: the package.
        slots: tasks at once.
        gpus: of each cell.
        ours: whether the connection ends with the engine.
    """

    handful = 0.5

    def __init__(self, store: Path, ray: Any, slots: int, gpus: float, *, ours: bool) -> None:
        self.store, self.ray, self.slots, self.gpus, self.ours = Store(store), ray, slots, gpus, ours
        self.task = ray.remote(_do)
        self.files = functools.lru_cache(READS * slots)(self._put)  # readers of a victim come close together
        self.running: set[Any] = set()
        self.threads = ThreadPoolExecutor(slots)  # each waits for one task

    def submit(self, cells: Sequence[Cell]) -> Future[list[Receipt]]:
        """As the interface says."""
        keys = sorted({key for cell in cells for key in cell.needs.values()})
        count = max(devices(cell) for cell in cells)
        options = {"num_cpus": count, "num_gpus": count * self.gpus, "max_retries": 1, "scheduling_strategy": "SPREAD"}
        task = self.task.options(**options).remote(cells, keys, *map(self.files, keys))
        self.running.add(task)
        return self.threads.submit(self._collect, task)

    def _put(self, key: str) -> Any:
        return self.ray.put(pack(self.store.files(key)))

    def _collect(self, task: Any) -> list[Receipt]:
        try:
            done: list[Done] = self.ray.get(task)
        except self.ray.exceptions.RayError as error:
            raise Lost(f"{type(error).__name__} ({_line(error)})") from error
        finally:
            self.running.discard(task)
        for receipt, card, files in done:
            unpack(files, self.store.files(receipt.key))
            self.store.write(receipt.key, card)
        return [receipt for receipt, _, _ in done]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.threads.shutdown(wait=False, cancel_futures=error is not None)
        for task in list(self.running) if error is not None else ():
            self.ray.cancel(task, force=True)
        self.threads.shutdown()
        self.files.cache_clear()
        if self.ours:
            self.ray.shutdown()


def _do(cells: Sequence[Cell], keys: Sequence[str], *files: Mapping[str, bytes]) -> list[Done]:
    """Do cells in a store that only this task sees."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="mithridate-") as folder:
        store = Store(Path(folder))
        for key, each in zip(keys, files, strict=True):
            unpack(each, store.files(key))
        receipts = work(store.folder, cells)
        return [(receipt, store.read(receipt.key), pack(store.files(receipt.key))) for receipt in receipts]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
