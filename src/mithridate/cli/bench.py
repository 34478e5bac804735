"""`mithridate bench`: a declared grid of attacks and defenses, planned, done, asked and carried."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:  # so that --help stays fast
    from mithridate.bench import Store
    from mithridate.bench.cell import Cell

bench = typer.Typer(help="Run every attack against every defense, from one plan.", rich_markup_mode=None, no_args_is_help=True)

Plan = Annotated[Path, typer.Argument(help="TOML file of the grid.")]
Size = Annotated[Optional[str], typer.Option(help="Table of the plan that takes the place of its defaults, such as small.")]  # noqa: UP045
Results = Annotated[Path, typer.Option("--store", help="Folder of cards.")]
Slice = Annotated[Optional[str], typer.Option("--slice", help="Only a share of the victims and what is judged on them, such as 1/4.")]  # noqa: UP045


@bench.command("plan")
def plan(grid: Plan, size: Size = None, store: Results = Path("store"), part: Slice = None) -> None:
    """Print the cells of a grid, what is done already, and how long the rest will take by earlier cards."""
    from mithridate.bench import Store
    from mithridate.bench.ready import check
    from mithridate.cli.grids import overview

    cells = _cells(grid, size, part)
    check(cells)
    overview(cells, Store(store), minutes=_minutes(grid, size))


@bench.command("run")
def run(
    grid: Plan,
    size: Size = None,
    store: Results = Path("store"),
    part: Slice = None,
    engine: Annotated[str, typer.Option(help="local, slurm or ray.")] = "local",
    workers: Annotated[Optional[int], typer.Option(help="Cells at once. [default: what the machine or cluster has]")] = None,  # noqa: UP045
    address: Annotated[Optional[str], typer.Option(help="Of a Ray cluster. [default: one on this machine]")] = None,  # noqa: UP045
    partition: Annotated[Optional[str], typer.Option(help="Of the SLURM cluster.")] = None,  # noqa: UP045
    minutes: Annotated[Optional[float], typer.Option(help="Stop after so long; the next run goes on where this one was.")] = None,  # noqa: UP045
    retry: Annotated[bool, typer.Option(help="Try failed cells again.")] = False,
    watch: Annotated[Optional[Path], typer.Option(help="Page to keep up to date for a browser.")] = None,  # noqa: UP045
    quiet: Annotated[bool, typer.Option(help="No live view.")] = False,
) -> None:
    """Do every cell that has no card yet; a run that was killed goes on where it stopped."""
    from mithridate.bench import Store, TimeUp
    from mithridate.bench import run as do
    from mithridate.bench.engines import open_engine
    from mithridate.bench.ready import check
    from mithridate.cli.bars import say
    from mithridate.cli.grids import forget_failed, summary, watching
    from mithridate.files import claim

    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes must be positive, got {minutes}")
    cells, results = _cells(grid, size, part), Store(store)
    check(cells)
    claim(store)
    if retry:
        forget_failed(cells, results)
    wanted = {"workers": workers, "address": address, "partition": partition}
    options = {name: value for name, value in wanted.items() if value is not None}
    try:
        with watching(cells, results, watch, quiet=quiet) as shown, open_engine(engine, store.resolve(), **options) as engaged:
            shown.slots = engaged.slots
            state = do(cells, results, engaged, watch=shown, seconds=None if minutes is None else 60 * minutes)
    except TimeUp as end:
        state = end.state
    say(*summary(state, store))


@bench.command("query")
def query(
    store: Annotated[Path, typer.Argument(help="Folder of cards.")],
    question: Annotated[
        str, typer.Argument(help="SQL over the table `cards`.")
    ] = "SELECT kind, status, count(*) AS cells FROM cards GROUP BY ALL",
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
    parquet: Annotated[Optional[Path], typer.Option(help="Write the whole table as Parquet instead.")] = None,  # noqa: UP045
) -> None:
    """Ask the cards in SQL (DuckDB); DESCRIBE cards lists the columns."""
    from mithridate.bench.view import ask, write_parquet
    from mithridate.cli.bars import say
    from mithridate.cli.grids import print_answer

    rows = list(_existing(store).rows())
    if parquet is not None:
        write_parquet(rows, parquet)
        say(f"{len(rows):,} cards written to {parquet}")
        return
    print_answer(*ask(rows, question), csv=csv)


@bench.command("merge")
def merge(
    store: Annotated[Path, typer.Argument(help="Folder of cards that the others go to.")],
    others: Annotated[list[Path], typer.Argument(help="Folders of cards, such as came back from another machine.")],
) -> None:
    """Copy the cards and files that other stores have and this one lacks."""
    from mithridate.bench import Store
    from mithridate.cli.bars import say

    for other in others:
        say(f"{Store(store).merge(_existing(other)):,} cards from {other}")


@bench.command("adopt")
def adopt(
    grid: Plan,
    victims: Annotated[Path, typer.Argument(help="Folder of folders that mithridate infect made.")],
    size: Size = None,
    store: Results = Path("store"),
) -> None:
    """Take finished victims of mithridate infect that are just what the grid asks for, in place of training them again."""
    from mithridate.bench import Store
    from mithridate.bench.adopt import adopt as take
    from mithridate.cli.bars import bars, say

    with bars() as progress:
        taken = take(_cells(grid, size, None), Store(store), victims, progress)
    say(f"{len(taken):,} victims adopted")


@bench.command("pack")
def pack(
    grid: Plan,
    out: Annotated[Path, typer.Option(help="Folder for the parts of the archive.")],
    size: Size = None,
    store: Results = Path("store"),
    part: Slice = None,
) -> None:
    """Pack code, images and what is done of a grid for a machine without a network: cat pack.* | tar x && bash go.sh MINUTES."""
    from mithridate.bench import Store
    from mithridate.bench.pack import pack as write
    from mithridate.cli.bars import say

    flags = " ".join(f"--{name} {value}" for name, value in (("size", size), ("slice", part)) if value)
    for path in write(grid, _cells(grid, size, part), Store(store), out, flags):
        say(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def _cells(grid: Path, size: str | None, part: str | None) -> list[Cell]:
    from mithridate.bench import cells, read
    from mithridate.cli.grids import sliced

    return sliced(cells(read(grid, size)), part)


def _minutes(grid: Path, size: str | None) -> float | None:
    from mithridate.bench import read

    return read(grid, size).minutes


def _existing(store: Path) -> Store:
    from mithridate.bench import Store
    from mithridate.errors import BadFile

    found = Store(store)
    if not found.keys():
        raise BadFile(f"{store}: no cards in it")
    return found
