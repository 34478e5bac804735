"""Doing a grid: what is ready goes to the engine, what is done stays done, what is lost is tried again."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

from mithridate.bench.cell import Cell
from mithridate.bench.engines.engine import Engine, Lost, Receipt
from mithridate.bench.estimate import Estimator
from mithridate.bench.finished import finished, lay_out
from mithridate.bench.perform import failed
from mithridate.bench.store import Store

ATTEMPTS = 3
MOST = 64  # cells in one submission


@dataclass
class State:
    """How far a grid is; what whoever watches is shown after every change.

    Attributes:
        cells: all cells of the grid.
        cached: how many were done before.
        counts: status -> cells that came to it, now or before.
        running: cells with the engine.
        finished: receipts of this run, the latest last.
    """

    cells: Sequence[Cell]
    cached: int = 0
    counts: dict[str, int] = field(default_factory=lambda: {"done": 0, "dead": 0, "failed": 0})
    running: list[Cell] = field(default_factory=list)
    finished: list[Receipt] = field(default_factory=list)


class TimeUp(Exception):
    """The time is over while cells are with the engine, whose workers can be stopped: what they have begun is gone on from.

    Args:
        state: how far the grid is.
    """

    def __init__(self, state: State) -> None:
        super().__init__("the time is up")
        self.state = state


Watch = Callable[[State], None]


def unwatched(state: State) -> None:
    """The watch that looks away."""


def run(cells: Sequence[Cell], store: Store, engine: Engine, *, watch: Watch = unwatched, seconds: float | None = None) -> State:
    """Do every cell that has no card yet.

    A cell that fails gets a card with its reason; cells that need it get one too. Cells whose worker dies are tried again.

    Args:
        cells: of a plan, each after the ones it needs.
        store: where cards are, and go.
        engine: who does the work.
        watch: told of every change.
        seconds: how long; None for no limit.

    Raises:
        TimeUp: cells are being done when the time is over; leaving the engine's block with it stops them.
    """
    return _Run(cells, store, engine, watch).go(seconds)


class _Run:
    """The cells that wait, those that are ready, and those with the engine."""

    def __init__(self, cells: Sequence[Cell], store: Store, engine: Engine, watch: Watch) -> None:
        self.store, self.engine, self.watch = store, engine, watch
        self.place = {cell.key: i for i, cell in enumerate(cells)}
        self.cells, self.state = cells, State(cells)
        self.lost: dict[str, int] = {}
        self.estimator = Estimator(())
        self.running: dict[Future[list[Receipt]], Sequence[Cell]] = {}
        there = finished(cells, store)
        pending = [cell for cell in cells if cell.key not in there]
        self.state.cached = len(cells) - len(pending)
        self.missing = {cell.key: {key for key in cell.needs.values() if key not in there} for cell in pending}
        self.readers: dict[str, list[Cell]] = {}
        for cell in pending:
            for key in set(cell.needs.values()):
                self.readers.setdefault(key, []).append(cell)
        self.ready = [self.place[cell.key] for cell in pending if not self.missing[cell.key]]
        heapq.heapify(self.ready)
        old = {row["key"]: row for row in store.rows()}
        for key in there & self.place.keys():
            self._count_old(key, old[key]["status"], old[key]["reason"])

    def go(self, seconds: float | None) -> State:
        """Until nothing is left, or the time is up."""
        end = math.inf if seconds is None else time.monotonic() + seconds
        while self.ready or self.running:
            while self.ready and len(self.running) < self.engine.slots:
                self._submit(self._handful())
            left = None if seconds is None else max(0.0, end - time.monotonic())
            for future in wait(self.running, left, return_when=FIRST_COMPLETED).done:
                self._finish(future)
            self.watch(self.state)
            if time.monotonic() >= end and (self.ready or self.running):
                raise TimeUp(self.state)
        return self.state

    def _handful(self) -> list[Cell]:
        """The next cells for one worker: one, or several where they are tiny and there are enough for all.

        A cell that was lost goes alone: it may be what its worker died of, and shall not take others with it again.
        """
        most = min(MOST, len(self.ready) // (2 * self.engine.slots))
        chosen = [self._next()]
        seconds = self.estimator.seconds(chosen[0])
        while self.ready and len(chosen) < most and not any(cell.key in self.lost for cell in (chosen[0], self.cells[self.ready[0]])):
            seconds += self.estimator.seconds(self.cells[self.ready[0]])
            if seconds > self.engine.handful:
                break
            chosen.append(self._next())
        return chosen

    def _next(self) -> Cell:
        return self.cells[heapq.heappop(self.ready)]

    def _submit(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            lay_out(cell, self.store)
        self.running[self.engine.submit(cells)] = cells
        self.state.running.extend(cells)
        self.watch(self.state)

    def _finish(self, future: Future[list[Receipt]]) -> None:
        cells = self.running.pop(future)
        gone = {cell.key for cell in cells}
        self.state.running = [cell for cell in self.state.running if cell.key not in gone]
        try:
            for receipt in future.result():
                self._done(receipt)
        except Lost as error:
            self._again(cells, str(error))

    def _again(self, cells: Iterable[Cell], reason: str) -> None:
        """Cells whose worker died go back to the others, but not for ever."""
        for cell in cells:
            self.lost[cell.key] = self.lost.get(cell.key, 0) + 1
            if cell.key in self.store:
                card = self.store.read(cell.key)
                self._done(Receipt(cell.key, card.status, card.reason, card.seconds.get("all", 0.0)))
            elif self.lost[cell.key] < ATTEMPTS:
                heapq.heappush(self.ready, self.place[cell.key])
            else:
                self._give_up(cell, f"{reason}, {ATTEMPTS} times (out of memory?)")

    def _done(self, receipt: Receipt) -> None:
        cell = self.cells[self.place[receipt.key]]
        self.estimator.learn(cell.kind, cell.config, receipt.seconds)
        self.state.finished.append(receipt)
        self.state.counts[receipt.status] += 1
        for reader in self.readers.get(receipt.key, ()):
            waits = self.missing[reader.key]
            if receipt.key not in waits:
                continue
            waits.discard(receipt.key)
            if receipt.status == "failed":
                waits.add("")  # never ready
                self._give_up(reader, f"{self._named(receipt.key)} failed: {receipt.reason}")
            elif not waits:
                heapq.heappush(self.ready, self.place[reader.key])

    def _give_up(self, cell: Cell, reason: str) -> None:
        if cell.key not in self.store:
            self.store.write(cell.key, failed(cell, reason))
            self._done(Receipt(cell.key, "failed", reason, 0.0))

    def _named(self, key: str) -> str:
        cell = self.cells[self.place[key]]
        return "its victim" if cell.kind == "victim" else f"{cell.config['defense']} before it"

    def _count_old(self, key: str, status: str, reason: str) -> None:
        if status == "failed" and self.readers.get(key):
            for reader in self.readers[key]:
                self.missing[reader.key].add("")
                self._give_up(reader, f"{self._named(key)} failed: {reason}")
            self.ready = [i for i in self.ready if not self.missing[self.cells[i].key]]
            heapq.heapify(self.ready)
        self.state.counts[status] += 1
