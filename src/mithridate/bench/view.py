"""A store as a table: one row a card, one column a field or number, for questions in SQL and for Parquet."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mithridate.errors import BadSpec, MissingExtra
from mithridate.files import write_atomic

SHARES = (
    "clean_accuracy",
    "asr",
    "recovered_accuracy",
    "fpr",
    "tpr",
    "tpr_all",
    "fpr_5",
    "tpr_5",
    "residual_asr",
    "precision_top",
    "isolated",
    "isolated_precision",
    "isolated_recall",
    "asr_reactivated",
)
NUMBERS = ("auroc", "der", "p_value", "right", "accuracy_cost", "seconds_all", "seconds_defense", "forwards", "gradients", "peak_memory")
PLACE = ("dataset", "images", "model", "trainer", "attack", "seed", "defense", "role", "evasion")


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row of `Store.rows` without nesting: a share becomes `asr`, `asr_low` and `asr_high`."""
    config, dose = row["config"], row["config"].get("dose", {})
    found = {"key": row["key"], "kind": row["kind"], "status": row["status"], "reason": row["reason"]}
    found |= {name: config.get(name) for name in PLACE}
    found |= {"rate": dose.get("rate"), "target": None if "target" not in dose else str(dose["target"])}
    for name, value in row["metrics"].items():
        if isinstance(value, list) and len(value) == 3:
            found |= {name: value[0], f"{name}_low": value[1], f"{name}_high": value[2]}
        elif not isinstance(value, (list, dict)):
            found[f"said_{name}" if name in found else name] = value
    found |= {f"seconds_{name}": value for name, value in row["seconds"].items()} | dict(row["cost"])
    return found | {"commit": row["commit"], "hardware": row["hardware"]}


def table(rows: Iterable[Mapping[str, Any]]) -> Any:
    """The rows as one `pyarrow.Table`.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingExtra("pyarrow", "grid") from error
    flattened = [flat(row) for row in rows]
    usual = [*(f"{name}{end}" for name in SHARES for end in ("", "_low", "_high")), *NUMBERS]  # there to be asked for, even if all empty
    names = dict.fromkeys([*(name for row in flattened for name in row), *usual])
    columns = {name: [row.get(name) for row in flattened] for name in names}
    return pa.table(
        {name: pa.array(values, None if any(v is not None for v in values) else pa.float64()) for name, values in columns.items()}
    )


def ask(rows: Iterable[Mapping[str, Any]], question: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows that answer a question in DuckDB's SQL over the table `cards`; it can read nothing else.

    Raises:
        MissingExtra: duckdb or pyarrow is not installed.
        BadSpec: the question cannot be answered; the text says why.
    """
    try:
        import duckdb
    except ImportError as error:
        raise MissingExtra("duckdb", "grid") from error
    with duckdb.connect(config={"enable_external_access": False, "python_enable_replacements": False}) as database:
        database.register("cards", table(rows))
        try:
            answer = database.execute(question)
            return [column[0] for column in answer.description or ()], answer.fetchall()
        except duckdb.Error as error:
            raise BadSpec(f"query: {' '.join(str(error).split())[:300]}") from error


def write_parquet(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write the table for other programs.

    Raises:
        MissingExtra: pyarrow is not installed.
        OSError: the file cannot be written.
    """
    whole, buffer = table(rows), io.BytesIO()
    from pyarrow import parquet  # after `table` has said what is missing, if it is

    parquet.write_table(whole, buffer)
    write_atomic(path, buffer.getvalue())
