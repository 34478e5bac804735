"""Processes on this machine: one thread each on a processor, or one GPU each."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from mithridate.bench.cell import Cell
from mithridate.bench.engines.engine import Lost, Receipt
from mithridate.bench.worker import die_with, work

MEMORY = 2 * 1024**3  # bytes that a worker takes with CIFAR-10 in memory, with room to spare


def open_engine(store: Path, workers: int | None = None) -> Local:
    """Workers on this machine; as many as it has GPUs, or else processors, and memory for, unless said."""
    return Local(store, workers or _affordable())


class Local:
    """A pool of processes that is renewed when one of them dies.

    Args:
        store: folder that the cards go to.
        slots: processes, at least 1.

    Raises:
        ValueError: no process at all.
    """

    def __init__(self, store: Path, slots: int) -> None:
        if slots < 1:
            raise ValueError(f"workers must be at least 1, got {slots}")
        self.store, self.slots = store, slots
        self.pool = self._pool()

    def submit(self, cells: Sequence[Cell]) -> Future[list[Receipt]]:
        """As the interface says."""
        try:
            done = self.pool.submit(work, self.store, cells)
        except BrokenProcessPool:
            self.pool.shutdown(wait=False, cancel_futures=True)
            self.pool = self._pool()
            done = self.pool.submit(work, self.store, cells)
        return _losing(done)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.pool.shutdown(wait=error is None, cancel_futures=True)

    def _pool(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")  # a fork would copy PyTorch's threads in whatever state they are
        gpus: Any = context.SimpleQueue()
        for i in range(self.slots):
            gpus.put(i % torch.cuda.device_count() if torch.cuda.is_available() else None)
        return ProcessPoolExecutor(self.slots, context, initializer=_prepare, initargs=(os.getpid(), gpus))


def _prepare(parent: int, gpus: Any) -> None:
    die_with(parent)
    gpu = gpus.get()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
    torch.set_num_threads(1)  # several processes with threads each would starve one another


def _losing(done: Future[list[Receipt]]) -> Future[list[Receipt]]:
    """The same future, but the death of a worker is told as `Lost`."""
    told: Future[list[Receipt]] = Future()

    def tell(finished: Future[list[Receipt]]) -> None:
        error = finished.exception()
        if error is None:
            told.set_result(finished.result())
        else:
            told.set_exception(Lost("a worker died") if isinstance(error, BrokenProcessPool) else error)

    done.add_done_callback(tell)
    return told


def _affordable() -> int:
    if torch.cuda.is_available():
        return torch.cuda.device_count()
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else MEMORY
    return max(1, min(os.cpu_count() or 1, free // MEMORY))
