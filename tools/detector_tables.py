"""Tables of the benchmarks of detectors, for the page of results."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pages import read_cards, table

THREATS = ("backdoor", "adversarial")
PUBLISHED = "Others on the authors' released mutants, MNIST: mutation 0.993 backdoor, 0.987 adversarial; none was found for Fashion-MNIST."


def jin(folder: Path) -> Iterator[str]:
    """The setting of Jin et al. over seeds."""
    yield "## The setting of Jin et al. 2020\n"
    yield "`jin_cnn`, a white 4 x 4 square, C&W towards a random class each; one threshold on both, each detector fitted once. AUROC, mean"
    yield f"[lowest, highest] over seeds; then TPR at an asked 5 %, and the false-positive rate that came about. {PUBLISHED}\n"
    groups: dict[str, list[dict[str, Any]]] = {}
    for card in read_cards(folder / "detectors"):
        groups.setdefault(card["config"]["dataset"], []).append(card["metrics"])
    heads = ["data", "seeds", "detector", *(f"{threat}: {what}" for threat in THREATS for what in ("AUROC", "TPR")), "FPR", "mutants used"]
    yield from table(heads, [row for name, found in groups.items() for row in _rows(name, found)])


def _rows(name: str, seeds: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    for spec in (spec for spec, found in seeds[0].items() if isinstance(found, dict)):
        found = [each[spec] for each in seeds]
        cells = [cell for threat in THREATS for cell in _judged([each[threat] for each in found])]
        used = f"{statistics.fmean(f['mutants']['mean'] for f in found):.0f}" if "mutants" in found[0] else "-"
        yield [name, str(len(seeds)), f"`{spec}`", *cells, _percent([f["fpr_5"] for f in found]), used]


def _judged(found: Sequence[dict[str, Any]]) -> list[str]:
    return [_spread([each["auroc"] for each in found]), _percent([each["tpr_5"] for each in found])]


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


def _percent(shares: Sequence[Sequence[float]]) -> str:
    return f"{100 * statistics.fmean(share[0] for share in shares):.1f}"


def costs(folder: Path) -> Iterator[str]:
    """What detectors cost beside other ways of doing the same, and what they add to a bare pass."""
    yield "## What detectors cost\n"
    yield "Ratios of the processor's time within one run, median [lowest, highest].\n"
    every = [(name, value) for card in read_cards(folder / "speed") for name, value in card["metrics"].items()]
    found = [(name, value) for name, value in every if isinstance(value, dict)]
    rows = [[name, way, _ratio(each)] for name, value in found for way, each in value.get("times_faster_than", {}).items()]
    yield from table(["what", "than", "times faster"], [[cell.replace("_", " ") for cell in row] for row in rows])
    rows = [[f"`{name}`", who, _ratio(each)] for name, value in found for who, each in value.get("times_the_bare_pass", {}).items()]
    yield from table(["model", "what reads it", "times the bare forward pass"], rows)
    peaks = {name: value["peak_bytes"] for name, value in found if "peak_bytes" in value}
    yield "Most memory while fitting on 1,000,000 images on disk, and scoring:\n"
    yield from table(["what", "GiB"], [[f"`{name}`", f"{peak / 2**30:.2f}"] for name, peak in peaks.items()])


def _ratio(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3g} [{min(values):.3g}, {max(values):.3g}]"
