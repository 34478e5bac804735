"""What the command line shows of a grid: before, while and after it runs."""

from __future__ import annotations

import collections
import csv as tables
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mithridate import methods
from mithridate.bench.cell import Cell
from mithridate.bench.estimate import Estimator
from mithridate.bench.finished import finished
from mithridate.bench.run import State
from mithridate.bench.store import Store
from mithridate.errors import BadSpec
from mithridate.files import write_atomic
from mithridate.report.watch import watch_page
from mithridate.report.words import duration, printable

EVERY = 0.5  # seconds between two looks at the terminal
PAGE_EVERY = 3.0  # and at the page


def sliced(cells: Sequence[Cell], part: str | None) -> list[Cell]:
    """The share `i/n` of the victims with everything that is judged on them, and the twins that those need.

    Raises:
        BadSpec: not such a share.
    """
    if part is None:
        return list(cells)
    i, slash, n = part.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise BadSpec(f"slice must be i/n with 1 <= i <= n, such as 1/4, got {part!r}")
    victims = [cell.key for cell in cells if cell.kind == "victim"]
    mine = set(victims[int(i) - 1 :: int(n)])
    kept = [cell for cell in cells if cell.key in mine or cell.needs.get("victim") in mine]
    needed = {key for cell in kept for key in cell.needs.values()} | mine
    return [cell for cell in cells if cell.key in needed or cell.needs.get("victim") in mine]


def overview(cells: Sequence[Cell], store: Store, minutes: float | None) -> None:
    """Print what a grid consists of, by kind and defense, with the time that is left."""
    there, estimator = finished(cells, store), Estimator(store.rows())
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(
            "victims" if cell.kind == "victim" else f"{cell.config['role']} {methods.brief(cell.config['defense'])}", []
        ).append(cell)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("cells of", overflow="fold")
    for column in ("all", "done", "to do", "minutes to do"):
        table.add_column(column, justify="right", no_wrap=True)
    total = 0.0
    for name, group in groups.items():
        rest = [cell for cell in group if cell.key not in there]
        seconds = sum(estimator.seconds(cell) for cell in rest)
        total += seconds
        table.add_row(Text(printable(name)), f"{len(group):,}", f"{len(group) - len(rest):,}", f"{len(rest):,}", f"{seconds / 60:,.1f}")
    done = sum(cell.key in there for cell in cells)
    table.add_section()
    table.add_row("all", f"{len(cells):,}", f"{done:,}", f"{len(cells) - done:,}", f"{total / 60:,.1f}")
    console = Console()
    console.print(table)
    if minutes is not None and total / 60 > minutes:
        console.print(f"one worker would take {total / 60:,.0f} minutes, the plan allows {minutes:g}: {total / 60 / minutes:.1f} workers")


def forget_failed(cells: Sequence[Cell], store: Store) -> None:
    """Remove the cards of failed cells, so that they are tried again."""
    there = store.keys()
    for cell in cells:
        if cell.key in there and store.read(cell.key).status == "failed":
            store.forget(cell.key)


@contextmanager
def watching(cells: Sequence[Cell], store: Store, page: Path | None, *, quiet: bool) -> Iterator[View]:
    """A live view in the terminal, and the page if one is asked for; silence where nobody watches."""
    console = Console(stderr=True)
    there = finished(cells, store)
    view = View([cell for cell in cells if cell.key not in there], Estimator(store.rows()), page)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        if not quiet and console.is_terminal:
            view.live = live
        try:
            yield view
        finally:
            view.write_page(finished=True)


class View:
    """Draws the state of a run, not more often than anybody can see.

    Args:
        pending: cells that the run has to do.
        estimator: of how long they take.
        page: HTML file to keep up to date, or None.
    """

    def __init__(self, pending: Sequence[Cell], estimator: Estimator, page: Path | None) -> None:
        self.pending, self.estimator, self.page = pending, estimator, page
        self.live: Live | None = None
        self.slots = 1
        self.drawn = self.written = 0.0
        self.state: State | None = None

    def __call__(self, state: State) -> None:
        """Show a new state."""
        self.state, now = state, time.monotonic()
        if self.live is not None and now - self.drawn >= EVERY:
            self.drawn = now
            self.live.update(self._drawing(state), refresh=True)
        if now - self.written >= PAGE_EVERY:
            self.written = now
            self.write_page()

    def write_page(self, *, finished: bool = False) -> None:
        """Write the page, if one was asked for."""
        if self.page is not None and self.state is not None:
            html = watch_page(
                counts=self.state.counts,
                of=len(self.state.cells),
                left=self._left(self.state),
                running=self._running(self.state),
                failures=failures(self.state),
                finished=finished,
            )
            write_atomic(self.page, html.encode())

    def _drawing(self, state: State) -> Text:
        counts, done = state.counts, sum(state.counts.values())
        head = f"{done:,} of {len(state.cells):,} cells, {counts['dead']:,} dead, {counts['failed']:,} failed"
        running = (f"  {name}" for name in self._running(state)[:8])
        return Text("\n".join(printable(line) for line in (f"{head}, {duration(self._left(state))} left", *running)))

    def _running(self, state: State) -> list[str]:
        return [named(cell) for cell in state.running]

    def _left(self, state: State) -> float:
        """Seconds to go, by the cells' estimates and the number of workers."""
        finished = {receipt.key for receipt in state.finished}
        rest = [cell for cell in self.pending if cell.key not in finished]
        sample = rest[:: max(1, len(rest) // 500)]
        if not sample:
            return 0.0
        return statistics.fmean(self.estimator.seconds(cell) for cell in sample) * len(rest) / self.slots


def named(cell: Cell) -> str:
    """A cell in a few words."""
    config = cell.config
    rate = config["dose"].get("rate")
    threat = f"{config['attack'] or 'clean'}{f' at {rate:g}' if rate else ''}"
    against = "training" if cell.kind == "victim" else methods.brief(config["defense"])
    extra = f" against {config['evasion']}" if config.get("evasion") else ""
    return f"{config['dataset']} {config['model']} seed {config['seed']}: {threat}: {against}{extra}"


def failures(state: State) -> list[str]:
    """Cells that failed in this run, with their reasons, the latest last."""
    cells = {cell.key: cell for cell in state.cells}
    return [f"{named(cells[receipt.key])}: {receipt.reason}" for receipt in state.finished if receipt.status == "failed"]


def summary(state: State, store: Path) -> list[str]:
    """What a run came to, line by line."""
    done = sum(state.counts.values())
    counts = ", ".join(f"{count:,} {status}" for status, count in state.counts.items() if count)
    lines = [f"{done:,} of {len(state.cells):,} cells ({counts or 'none'}), {state.cached:,} of them from before"]
    reasons = collections.Counter(receipt.reason for receipt in state.finished if receipt.status == "failed")
    lines += [f"failed {count}x: {reason}" for reason, count in reasons.most_common(5)]
    return [*lines, f"cards in {store}; mithridate report {store} draws them"]


def print_answer(names: Sequence[str], rows: Sequence[Sequence[Any]], *, csv: bool) -> None:
    """Print the answer to a query, on stdout."""
    if csv:
        writer = tables.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(printable(name), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(value)) for value in row))
    Console().print(table)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))
