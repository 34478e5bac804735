"""Entry point: commands, exit codes, and one clear line for everything that goes wrong."""

from __future__ import annotations

import os
import sys
import traceback
from typing import NoReturn

import typer

from mithridate.cli.analyse import analyse
from mithridate.cli.audit import audit
from mithridate.cli.bench import bench
from mithridate.cli.flags import take
from mithridate.cli.infect import infect
from mithridate.cli.methods import methods
from mithridate.cli.report import report
from mithridate.cli.screen import screen
from mithridate.cli.show import show
from mithridate.cli.train import train

app = typer.Typer(
    name="mithridate",
    help="Find, remove and survive backdoors and adversarial examples in image classifiers.",
    rich_markup_mode=None,  # plain help comes twice as fast
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(audit)
app.command()(screen)
app.command()(train)
app.command()(infect)
app.command()(show)
app.command()(analyse)
app.command("list")(methods)
app.command()(report)
app.add_typer(bench, name="bench")


def _version(show: bool) -> None:
    if show:
        from mithridate import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version.")) -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve each other on small machines


def main() -> None:
    """Run the command line; exits 0 (nothing found), 1 (something found) or 2 (could not run, with one line on stderr)."""
    try:
        known, dotted = take(sys.argv[1:] or ["--help"])
        code = app(known, standalone_mode=False, obj=dotted)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted")
    except Exception as error:  # noqa: BLE001 - the last place where anything can be said
        usage = getattr(error, "format_message", None)  # typer's usage errors; it brings its own click or takes the installed one
        if usage is not None:
            _fail(usage())
        if not _expected(error):
            traceback.print_exc()
            _fail(f"a defect of this program, please report it: {type(error).__name__}: {error}")
        _fail(str(error))
    sys.exit(code if isinstance(code, int) else 0)


def _expected(error: Exception) -> bool:
    """Whether an error is the user's to mend; anything else is a defect of ours and shows its traceback."""
    from mithridate.errors import MithridateError

    return isinstance(error, (MithridateError, ValueError, OSError))


def _fail(message: str) -> NoReturn:
    from mithridate.report.words import printable

    typer.echo(f"mithridate: {printable(' '.join(message.split()))}", err=True)
    sys.exit(2)
