"""A SLURM cluster, through submitit: every handful of cells is a job, and all nodes share the store's folder."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from mithridate.bench.cell import Cell
from mithridate.bench.engines.engine import Lost, Receipt, check, package
from mithridate.bench.processes import devices
from mithridate.bench.worker import work
from mithridate.errors import BadSpec

CLUSTERS = ("slurm", "local", "debug")
POLL = 0.5  # seconds between looks at the jobs; submitit itself asks SLURM less often
SHARE = 0.05  # of a job's time that a handful of cells may take by estimate, as estimates are rough


def open_engine(
    store: Path, workers: int = 32, partition: str | None = None, minutes: int = 240, gpus: int = 0, cluster: str = "slurm"
) -> Slurm:
    """Jobs of a SLURM cluster; store and data sets lie where every node sees them under the same path.

    Logs go to `work/slurm` in the store, into a folder of their own for each run; they stay where a job was lost.

    Args:
        store: folder that the cards go to.
        workers: jobs at once.
        partition: that they go to; None for the cluster's own choice.
        minutes: that a job may take; a cell that takes longer is lost.
        gpus: of each job; a trainer with `devices` gets so many times as many.
        cluster: `slurm`, or for trials processes of this machine (`local`) or this process (`debug`).

    Raises:
        BadSpec: an unknown cluster, or none from here.
        MissingExtra: submitit is not installed.
        ValueError: an option out of its range.
    """
    check("workers", workers, 1)
    check("minutes", minutes, 1)
    check("gpus", gpus, 0)
    if cluster not in CLUSTERS:
        raise BadSpec(f"cluster {cluster!r} is unknown; known: {', '.join(CLUSTERS)}")
    submitit = package("submitit")
    place = store / "work" / "slurm"
    place.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=place))  # new: jobs leave pickles, so no stranger's is read
    try:
        executor = submitit.AutoExecutor(folder, cluster)
    except RuntimeError as error:
        raise BadSpec(f"cluster {cluster!r} cannot be reached from here: {error}") from error
    executor.update_parameters(name="mithridate", timeout_min=minutes, slurm_partition=partition)
    engine = Slurm(store, executor, workers, gpus)
    engine.handful = SHARE * 60 * minutes
    return engine


class Slurm:
    """Jobs of an executor of submitit, which one thread keeps an eye on.

    Args:
        store: folder that the cards go to.
        executor: of submitit.
        slots: jobs at once.
        gpus: of each job.
    """

    handful = 0.0

    def __init__(self, store: Path, executor: Any, slots: int, gpus: int) -> None:
        self.store, self.executor, self.slots, self.gpus = store, executor, slots, gpus
        self.jobs: dict[Any, Future[list[Receipt]]] = {}
        self.lost, self.closing = False, threading.Event()
        self.threads = ThreadPoolExecutor(8)  # submitit waits a while for the result of a job that was killed
        self.poller = threading.Thread(target=self._poll, daemon=True)
        self.poller.start()

    def submit(self, cells: Sequence[Cell]) -> Future[list[Receipt]]:
        """As the interface says.

        Raises:
            BadSpec: SLURM does not take the job.
        """
        count = max(devices(cell) for cell in cells)
        self.executor.update_parameters(cpus_per_task=count, gpus_per_node=count * self.gpus)
        told: Future[list[Receipt]] = Future()
        try:
            self.jobs[self.executor.submit(_do, self.store, cells)] = told
        except package("submitit").core.utils.FailedJobError as error:
            raise BadSpec(f"SLURM did not take a job: {' '.join(str(error).split())[-200:]}") from error
        return told

    def _poll(self) -> None:
        while not self.closing.wait(POLL):
            for job in [job for job in list(self.jobs) if _over(job)]:
                self.threads.submit(self._collect, job, self.jobs.pop(job))

    def _collect(self, job: Any, told: Future[list[Receipt]]) -> None:
        try:
            told.set_result(job.result())
        except Exception as error:  # noqa: BLE001 - whatever became of it, its cells can be tried again
            self.lost = True
            told.set_exception(Lost(f"job {job.job_id} was lost, see {job.paths.stderr}: {' '.join(str(error).split())[-200:]}"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.closing.set()
        self.poller.join()
        for job in self.jobs:
            job.cancel(check=False)
        self.threads.shutdown()
        if error is None and not self.lost:
            shutil.rmtree(self.executor.folder, ignore_errors=True)


def _do(store: Path, cells: Sequence[Cell]) -> list[Receipt]:
    torch.set_num_threads(1)
    return work(store, cells)


def _over(job: Any) -> bool:
    """Whether a job has ended; one that cannot even say so has."""
    try:
        return bool(job.done())
    except Exception:  # noqa: BLE001 - `result` says it again
        return True
