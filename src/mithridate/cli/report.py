"""`mithridate report`: the cards of a grid as one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:  # so that --help stays fast
    from mithridate.bench import Store
    from mithridate.report.grid import Page

LOOK = "look.png"  # among a victim's files: what its trigger does to images


def report(
    store: Annotated[Path, typer.Argument(help="Folder of cards, as mithridate bench run fills it.")],
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("page.html"),
    plan: Annotated[Optional[Path], typer.Option(help="TOML file of the grid: only its cells, what is missing, and its papers.")] = None,  # noqa: UP045
    size: Annotated[Optional[str], typer.Option(help="Table of the plan that takes the place of its defaults, such as small.")] = None,  # noqa: UP045
) -> None:
    """Write one page with every result of a grid, to be filtered, compared and drawn in a browser without any network."""
    from mithridate.cli.bars import say
    from mithridate.files import write_atomic

    if size is not None and plan is None:
        raise ValueError("--size names a table of a plan, and needs --plan")
    if out.is_dir():
        raise OSError(f"cannot write {out}: it is a folder")
    made = _page(_existing(store), plan, size)
    write_atomic(out, made.html.encode())
    counts = ", ".join(f"{count:,} {status}" for status, count in made.counts.items() if count)
    say(f"{counts} cells written to {out} ({out.stat().st_size / 1e6:.1f} MB)", *_left_out(made))


def _page(results: Store, plan: Path | None, size: str | None) -> Page:
    from mithridate.bench import cells, read
    from mithridate.report.grid import Grid, render
    from mithridate.report.grid_published import published

    about: dict[str, Any] = {"title": results.folder.resolve().name}
    if plan is not None:
        grid = read(plan, size)
        planned = [{"kind": cell.kind, "config": dict(cell.config)} for cell in cells(grid)]
        about = {"title": grid.title, "planned": planned, "published": published(grid.published)}
    rows = list(results.rows())
    written = {row["key"]: results.card_path(row["key"]).stat().st_mtime for row in rows}
    return render(Grid(rows=rows, written=written, curves=lambda key: results.read(key).curves, picture=_looks(results), **about))


def _looks(results: Store) -> Any:
    """What gives the picture of a victim, if it has one."""

    def look(key: str) -> bytes | None:
        path = results.files(key) / LOOK
        return path.read_bytes() if path.is_file() else None

    return look


def _left_out(made: Page) -> list[str]:
    said = {"older cards of the same cells left out": made.older, "cards of cells that the plan has not left out": made.unplanned}
    return [f"{count:,} {what}" for what, count in said.items() if count]


def _existing(folder: Path) -> Store:
    from mithridate.bench import Store
    from mithridate.errors import BadFile

    if not folder.is_dir():
        raise BadFile(f"{folder}: no such folder")
    if not Store(folder).keys():
        raise BadFile(f"{folder}: no cards in it")
    return Store(folder)
