"""What an audit leaves in a folder: the report for people, the report for programs, the repaired weights and the guard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mithridate.audit.ends import Outcome
from mithridate.files import write_atomic
from mithridate.nn.resolve import save_model
from mithridate.nn.vault import save_weights
from mithridate.report.html import render


def write(outcome: Outcome, out: Path, card: Mapping[str, Any] | None = None) -> None:
    """Write `repaired.safetensors`, `guard.safetensors` with `guard.toml`, `report.html` and, last, `report.json`.

    Each file appears whole or not at all, so a folder with a `report.json` is a finished audit.

    Args:
        outcome: of the audit.
        out: the folder; made if missing.
        card: what is known of the model (arch, classes, input), so that the repaired weights can be loaded by themselves.
    """
    (out / "report.json").unlink(missing_ok=True)  # an old verdict must not stand beside new weights
    if outcome.report.repair is not None:
        weights = out / outcome.report.repair.weights
        save_model(weights, outcome.repaired, card) if card else save_weights(weights, outcome.repaired.state_dict())
    if outcome.guard is not None:
        outcome.guard.save(out)
    write_atomic(out / "report.html", render(outcome.report, outcome.pictures).encode())
    write_atomic(out / "report.json", outcome.report.model_dump_json(indent=2).encode() + b"\n")
