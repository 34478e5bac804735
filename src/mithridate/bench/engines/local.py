"""Processes on this machine: one thread each on a processor, or one GPU each."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from queue import LifoQueue
from types import TracebackType
from typing import Any, Self

import torch

from mithridate.bench.cell import Cell
from mithridate.bench.engines.engine import Lost, Receipt, check
from mithridate.bench.processes import die_with
from mithridate.bench.worker import work
from mithridate.errors import MithridateError

MEMORY = 2 * 1024**3  # bytes that a worker takes with CIFAR-10 in memory, with room to spare
PATIENCE = 3  # workers in a row that may die before they have begun: then it is not chance


def open_engine(store: Path, workers: int | None = None) -> Local:
    """Workers on this machine; as many as it has GPUs, or else processors, and memory for, unless said.

    Raises:
        ValueError: fewer than one worker.
    """
    check("workers", workers, 1)
    return Local(store, affordable() if workers is None else workers)


def affordable() -> int:
    """How many workers this machine has GPUs, or else processors and memory, for."""
    if torch.cuda.is_available():
        return torch.cuda.device_count()
    return max(1, min(os.cpu_count() or 1, _free() // MEMORY))


def _free() -> int:
    """Bytes of memory that are to be had; enough for all processors where the system cannot say."""
    told = Path("/proc/meminfo")  # what is free there does not count files that are only kept in case of need
    lines = told.read_text().splitlines() if told.exists() else []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else MEMORY * (os.cpu_count() or 1)


class Local:
    """Processes of which each that dies is started again, and takes no other with it.

    Args:
        store: folder that the cards go to.
        slots: processes, at least 1.
    """

    handful = 0.5

    def __init__(self, store: Path, slots: int) -> None:
        self.slots, self.stillborn = slots, 0
        self.workers = [_Worker(store, _gpus(i)) for i in range(slots)]
        self.idle: LifoQueue[_Worker] = LifoQueue()
        for worker in self.workers:
            self.idle.put(worker)
        self.threads = ThreadPoolExecutor(slots)  # each waits for one worker

    def submit(self, cells: Sequence[Cell]) -> Future[list[Receipt]]:
        """As the interface says."""
        worker = self.idle.get()
        worker.start()  # in this thread, so that whoever ends the block finds it
        return self.threads.submit(self._do, worker, cells)

    def _do(self, worker: _Worker, cells: Sequence[Cell]) -> list[Receipt]:
        try:
            return worker.do(cells)
        except Lost as error:
            self.stillborn = 0 if worker.begun else self.stillborn + 1
            if self.stillborn >= PATIENCE:
                raise MithridateError(
                    f"{error} as it began; does the script that runs the grid lack `if __name__ == '__main__':`?"
                ) from error
            raise
        finally:
            self.idle.put(worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.threads.shutdown(wait=False, cancel_futures=error is not None)
        for worker in self.workers if error is not None else ():
            worker.kill()
        self.threads.shutdown()
        for worker in self.workers:
            worker.end()


class _Worker:
    """One process, started when there is work and again when it has died."""

    def __init__(self, store: Path, gpus: str) -> None:
        self.store, self.gpus, self.begun = store, gpus, False
        self.process: Any = None
        self.pipe: Any = None

    def start(self) -> None:
        """Have a process, if there is none."""
        if self.process is not None:
            return
        context = multiprocessing.get_context("spawn")  # a fork would copy PyTorch's threads in whatever state they are
        self.pipe, theirs = context.Pipe()
        self.process, self.begun = context.Process(target=_serve, args=(theirs, self.store, os.getpid(), self.gpus)), False
        self.process.start()
        theirs.close()  # so that only the process holds it, and its death is seen

    def do(self, cells: Sequence[Cell]) -> list[Receipt]:
        """What comes of some cells.

        Raises:
            Lost: the process died.
        """
        try:
            self.begun = self.begun or self.pipe.recv()
            self.pipe.send(cells)
            told = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise Lost(f"a worker died with exit code {self.end()}") from error
        if isinstance(told, Exception):
            raise told
        receipts: list[Receipt] = told
        return receipts

    def kill(self) -> None:
        """End the process whatever it is doing."""
        if self.process is not None:
            self.process.kill()

    def end(self) -> int | None:
        """Let the process go, which ends when nobody is there to hear it; its exit code."""
        if self.process is None:
            return None
        self.pipe.close()
        self.process.join()
        code: int | None = self.process.exitcode
        self.process.close()
        self.process = None
        return code


def _serve(pipe: Connection, store: Path, parent: int, gpus: str) -> None:
    """Do cells until the other end is closed."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, who ends this process
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    torch.set_num_threads(1)  # several processes with threads each would starve one another
    with suppress(EOFError, OSError):  # nobody is there any more
        pipe.send(True)
        while True:
            pipe.send(_told(store, pipe.recv()))


def _told(store: Path, cells: Sequence[Cell]) -> list[Receipt] | Exception:
    try:
        return work(store, cells)
    except Exception as error:  # noqa: BLE001 - it is raised where somebody waits
        return error


def _gpus(i: int) -> str:
    """All GPUs with a worker's own first: a trainer with `devices` takes the following ones as well."""
    if not torch.cuda.is_available():
        return ""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = told.split(",") if told else [str(k) for k in range(torch.cuda.device_count())]
    first = i % len(names)
    return ",".join(names[first:] + names[:first])
