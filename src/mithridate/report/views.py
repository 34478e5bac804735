"""The page of the three views: what benign, adversarial and backdoor inputs do to a model, in one HTML file to explore."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mithridate.report.charted import charted
from mithridate.views.analysis import Analysis, Depth, Gap

DRAWN = 600  # inputs of each population that are drawn; the table is about all of them
VIEWS = ("sensitivity", "activation space", "feature space")


def render(analysis: Analysis) -> str:
    """The page as one HTML document that asks the network for nothing."""
    about = {"a": analysis, "pairs": _pairs(analysis), "rows": _rows(analysis)}
    return charted("views.html.j2", ("charts.js", "plots.js", "views.js"), ("style.css", "views.css"), _data(analysis), **about)


def _pairs(analysis: Analysis) -> list[tuple[str, str]]:
    return list(dict.fromkeys((gap.first, gap.second) for gap in analysis.gaps))


def _rows(analysis: Analysis) -> dict[tuple[str, str], dict[tuple[str, str], Gap]]:
    """View and measure -> pair of populations -> how far apart."""
    rows: dict[tuple[str, str], dict[tuple[str, str], Gap]] = {}
    for gap in sorted(analysis.gaps, key=lambda gap: VIEWS.index(gap.view)):
        rows.setdefault((gap.view, gap.name), {})[gap.first, gap.second] = gap
    return rows


def _data(analysis: Analysis) -> str:
    """What the script draws, as JSON that no `</script>` can end."""
    names = [each.name for each in analysis.populations]
    told = {
        "populations": [{"name": each.name, "kind": each.kind} for each in analysis.populations],
        "classes": analysis.classes,
        "levels": [
            {"level": float(f"{level.level:.3g}"), "chosen": level.chosen, "rates": _columns(level.rates, names)}
            for level in analysis.levels
        ],
        "path": [{"layer": depth.layer, "shares": [_shares(analysis, depth, name) for name in names]} for depth in analysis.depths],
        "planes": [{"layer": depth.layer, "points": _columns(depth.points, names)} for depth in analysis.depths],
        "predicted": _columns(analysis.predicted, names),
        "labels": [each.labels[:DRAWN].tolist() for each in analysis.populations],
        "measures": [
            {"view": each.view, "name": each.name, "note": each.note, "values": _columns(each.values, names)} for each in analysis.measures
        ],
    }
    return json.dumps(told, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _columns(values: Mapping[str, Tensor], names: list[str]) -> list[Any]:
    return [_rounded(values[name][:DRAWN].tolist()) for name in names]


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _shares(analysis: Analysis, depth: Depth, name: str) -> list[float]:
    """Shares of a population whose neighbors in a layer are of its true class, of the class that the model ends with, or of neither."""
    truth = next(each.labels for each in analysis.populations if each.name == name)
    here, end = depth.classes[name], analysis.predicted[name]
    final = here == end
    true = (here == truth) & ~final
    return [float(share.float().mean()) for share in (final, true, ~final & ~true)]
