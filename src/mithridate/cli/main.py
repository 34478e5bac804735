"""Entry point: commands, exit codes, and one clear line for everything that goes wrong."""

from __future__ import annotations

import os
import sys

import typer
from click.exceptions import Abort, ClickException

from mithridate.cli.audit import audit
from mithridate.cli.infect import infect
from mithridate.cli.methods import methods

EXTRA_FLAGS = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer(
    name="mithridate",
    help="Find, remove and survive backdoors and adversarial examples in image classifiers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command(context_settings=EXTRA_FLAGS)(audit)
app.command(context_settings=EXTRA_FLAGS)(infect)
app.command("list")(methods)


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
        code = app(standalone_mode=False)
    except ClickException as error:
        _fail(error.format_message())
    except (Abort, KeyboardInterrupt):
        _fail("interrupted")
    except Exception as error:
        if not _expected(error):
            raise
        _fail(str(error))
    sys.exit(code if isinstance(code, int) else 0)


def _expected(error: Exception) -> bool:
    """Whether an error is the user's to mend; anything else is a defect of ours and keeps its traceback."""
    from mithridate.errors import MithridateError

    return isinstance(error, (MithridateError, ValueError, OSError))


def _fail(message: str) -> None:
    line = " ".join(message.split())
    typer.echo(f"mithridate: {line}", err=True)
    sys.exit(2)
