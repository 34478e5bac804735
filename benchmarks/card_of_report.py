"""Turn the report of an audit whose truth was told into a card of results/audits/.

python benchmarks/card_of_report.py audit/report.json cifar10-wrn_16_1-badnets-r0.1
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mithridate.card import Card
from mithridate.report.schema import AuditReport

KEPT = {"infected", "target", "p_value", "clean_accuracy", "robust_accuracy", "flagged", "training", "repair", "truth", "evidence"}


def card(report: AuditReport, name: str) -> Card:
    """The card of one judged audit.

    Raises:
        ValueError: the report has no truth in it.
    """
    if report.truth is None:
        raise ValueError("report must hold the truth, got none")
    right = report.infected and report.target == report.truth.target
    said = report.model_dump(include=KEPT)
    for part in ("flagged", "training"):
        if said[part]:
            said[part].pop("files")
    metrics = {"right": right, "role": "infected", "true_target": report.truth.target} | said
    return Card(kind="audit", config={"model": name, **report.config}, metrics=metrics, seconds=report.seconds, versions=report.versions)


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("name")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "audits")
    args = parser.parse_args()
    card(AuditReport.model_validate(json.loads(args.report.read_text("utf-8"))), args.name).write(args.out / f"{args.name}.json")


if __name__ == "__main__":
    main()
