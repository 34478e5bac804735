"""`mithridate list`: every method by role."""

from __future__ import annotations

import json
from typing import Annotated, Optional

import typer


def methods(
    pattern: Annotated[str, typer.Argument(help="Name, with * and ? as wildcards.")] = "*",
    role: Annotated[Optional[str], typer.Option(help="Only this role, such as detector.")] = None,  # noqa: UP045 - typer reads it
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show every method with its role, scope, cost and paper."""
    from typing import get_args

    from mithridate import methods as registry
    from mithridate.roles import Role

    if role is not None and role not in get_args(Role):
        raise ValueError(f"role must be one of {', '.join(get_args(Role))}, got {role!r}")
    entries = [entry for entry in registry.find(pattern) if role in (None, entry.role)]
    if not entries:
        raise ValueError(f"no method is named {pattern!r}; mithridate list shows all")
    if as_json:
        rows = [
            {
                "name": e.name,
                "role": e.role,
                "scope": list(e.scope),
                "cost": e.cost,
                "paper": e.paper,
                "summary": e.summary,
                "fields": registry.fields(e),
            }
            for e in entries
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    _table(entries)


def _table(entries: list) -> None:  # type: ignore[type-arg]
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("method", "role", "for", "cost", "paper"):
        table.add_column(column, no_wrap=column in ("method", "role"), overflow="fold")
    for e in entries:
        table.add_row(e.name, e.role, ", ".join(e.scope) or "-", e.cost, e.paper)
    Console().print(table)
