"""Progress bars: how the command line shows what a method reports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mithridate.report.words import printable
from mithridate.roles import Progress as Callback


@contextmanager
def bars(quiet: bool = False) -> Iterator[Callback]:
    """A progress callback that draws one bar a task on stderr; silence when `quiet` or where nobody watches, as in a log file."""
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    tasks: dict[str, TaskID] = {}
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as shown:

        def report(task: str, done: int, total: int, note: str = "") -> None:
            if task not in tasks:
                tasks[task] = shown.add_task(task, total=total, note=note)
            shown.update(tasks[task], completed=done, total=total, note=note)

        yield report


def say(*lines: str) -> None:
    """Print lines for people, the first one bold, on stderr, so that stdout stays for programs; names in them disguise nothing."""
    console = Console(stderr=True)
    for i, line in enumerate(lines):
        console.print(printable(line), highlight=False, markup=False, soft_wrap=True, style="bold" if i == 0 else None)
