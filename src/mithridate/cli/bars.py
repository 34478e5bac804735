"""Progress bars: how the command line shows what a method reports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mithridate.roles import Progress as Callback


@contextmanager
def bars(quiet: bool = False) -> Iterator[Callback]:
    """A progress callback that draws one bar a task on stderr; plain silence when `quiet`."""
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as shown:

        def report(task: str, done: int, total: int, note: str = "") -> None:
            if task not in tasks:
                tasks[task] = shown.add_task(task, total=total, note=note)
            shown.update(tasks[task], completed=done, total=total, note=note)

        yield report


def say(*lines: Any) -> None:
    """Print lines for people, on stderr, so that stdout stays for programs."""
    console = Console(stderr=True)
    for line in lines:
        console.print(line, highlight=False)
