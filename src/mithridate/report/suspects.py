"""The page about training images that nobody vouches for: which are suspected and why, and, if a model was trained, how that went."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mithridate.metrics import Rate
from mithridate.report.charted import charted
from mithridate.report.ranking import Judged, Ranking
from mithridate.report.words import percent

SHOWN = 48  # images in the contact sheet
LISTED = 500  # file names in the list
DRAWN = 120  # images of a class that are drawn
CLASSES = 30  # classes that are drawn
BINS = 40
TAIL = 0.1  # share of a population below and above the band around its loss


@dataclass(frozen=True)
class Step:
    """What the judge measured after an epoch: accuracy on clean images and success of the attack, both in [0, 1]."""

    stage: str
    epoch: int
    accuracy: float
    success: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Page:
    """What the page tells.

    Attributes:
        title: what the images are called.
        verdict: the outcome in a sentence.
        tone: `ok`, `warn` or `none`, the verdict's color.
        notes: what the methods said of their work.
        remarks: what is odd about the images.
        ranking: suspicion of each image; None if no method ranked them.
        losses: (epochs, n) loss of each image in each epoch, NaN where it was not trained on; None if nobody kept them.
        course: for the judge, what became of the model.
        attack: for the judge, the attack as a specification; empty where nobody knows it.
        settings: name -> value of what was done.
    """

    title: str
    verdict: str
    tone: str = "none"
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    ranking: Ranking | None = None
    losses: Tensor | None = None
    course: tuple[Step, ...] = ()
    attack: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


def render(page: Page) -> str:
    """The page as one HTML document that asks the network for nothing."""
    ranking = page.ranking
    told: dict[str, Any] = {"p": page, "limits": {"shown": SHOWN, "listed": LISTED}, "judged": ranking.judged if ranking else None}
    told |= {"tiles": _tiles(ranking), "classes": _classes(ranking), "rates": _rates(told["judged"])}
    scripts, styles = ("charts.js", "plots.js", "suspects.js"), ("style.css", "views.css", "suspects.css")
    return charted("suspects.html.j2", scripts, styles, _data(page), **told)


def _tiles(ranking: Ranking | None) -> list[dict[str, Any]]:
    """The most suspicious images and what is known of each."""
    if ranking is None:
        return []
    samples, truth = ranking.samples, ranking.poisoned
    return [
        {
            "image": samples.images[row],
            "label": samples.classes[int(samples.labels[row])],
            "score": float(ranking.scores[row]),
            "name": ranking.name(row),
            "truth": None if truth is None else bool(truth[row]),
        }
        for row in ranking.shown[:SHOWN].tolist()
    ]


def _classes(ranking: Ranking | None) -> list[dict[str, Any]]:
    """One row a class that has images, the one with the largest share of flagged images first."""
    if ranking is None:
        return []
    rows = []
    for label in ranking.samples.labels.unique().tolist():
        own = (ranking.samples.labels == label).cpu()
        scores, flagged = ranking.scores[own], ranking.flagged[own]
        rows.append(
            {
                "label": label,
                "name": ranking.samples.classes[label],
                "count": int(own.sum()),
                "flagged": int(flagged.sum()),
                "share": float(flagged.float().mean()),
                "median": float(scores.median()),
                "highest": float(scores.max()),
                "poisoned": None if ranking.poisoned is None else int(ranking.poisoned[own].sum()),
            }
        )
    return sorted(rows, key=lambda row: (-row["share"], -row["highest"]))


def _rates(judged: Judged | None) -> list[tuple[str, str, float | None, str]]:
    """Name, meaning, value and interval of each number of the judge's table; of one that there is none of, no value."""
    if judged is None:
        return []
    rows = [
        ("Precision", "of the flagged images are poisoned", judged.precision),
        ("Recall", "of the poisoned images are flagged", judged.recall),
        ("Precision at 1%", "of the first hundredth of the ranking are poisoned", judged.top),
    ]
    return [(name, means, None if rate is None else rate.value, "" if rate is None else _interval(rate)) for name, means, rate in rows]


def _interval(rate: Rate) -> str:
    low, high = map(percent, rate.interval)
    return f"{rate.hits:,} of {rate.of:,}; 95% interval {low} to {high}"


def _data(page: Page) -> str:
    """What the script draws, as JSON that no `</script>` can end."""
    told: dict[str, Any] = {"scores": _scores(page.ranking) if page.ranking else None, "losses": {}}
    if page.losses is not None and len(page.losses) and page.ranking is not None:
        told["losses"]["found"] = _bands(page.losses, page.ranking.flagged, ("flagged", "the other images"))
        if page.ranking.judged is not None and page.ranking.poisoned is not None:
            told["losses"]["truth"] = _bands(page.losses, page.ranking.poisoned, ("poisoned", "clean"))
    told["course"] = [[f"{step.stage} {step.epoch or ''}".strip(), step.accuracy, step.success] for step in page.course]
    return json.dumps(told, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _scores(ranking: Ranking) -> dict[str, Any]:
    """Counts in bins for each class and population, and a few images of each class, evenly spread over their ranks."""
    scores = ranking.scores.double().cpu()
    center = float(scores.median())
    spread = 3 * float((scores - center).abs().median()) or float(scores.std(unbiased=False)) or 1.0
    bent = ((scores - center) / spread).asinh()
    low, high = float(bent.min()), float(bent.max())
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    drawn = _classes(ranking)[:CLASSES]
    labels, flagged, truth = ranking.samples.labels.cpu(), ranking.flagged.cpu(), ranking.poisoned
    everything = torch.ones_like(flagged)
    groups = [everything, *(labels == row["label"] for row in drawn)]

    def counted(kind: Tensor, of: Tensor) -> list[list[int]]:
        return [_counts(bent[of & each], (low, high)) for each in (~kind, kind)]

    return {
        "center": center,
        "spread": spread,
        "range": [low, high],
        "names": [row["name"] for row in drawn],
        "bins": [counted(flagged, group) for group in groups],
        "truth": None if ranking.judged is None or truth is None else counted(truth.cpu(), everything),
        "strip": [_strip(ranking, row["label"]) for row in drawn],
    }


def _counts(values: Tensor, limits: tuple[float, float]) -> list[int]:
    return [int(count) for count in torch.histc(values, BINS, *limits).tolist()] if len(values) else [0] * BINS


def _strip(ranking: Ranking, label: int) -> list[list[Any]]:
    rows = ranking.order[ranking.samples.labels.cpu()[ranking.order] == label]
    places = torch.linspace(0, len(rows) - 1, min(DRAWN, len(rows))).round().long()
    return [[float(f"{float(ranking.scores[row]):.5g}"), int(ranking.flagged[row]), ranking.name(row)] for row in rows[places].tolist()]


def _bands(losses: Tensor, chosen: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """Mean loss of the chosen images and of all others in each epoch, and the band that holds all but the tails."""
    found = []
    for name, group in zip(names, (chosen, ~chosen), strict=True):
        own = losses[:, group.cpu()].float()
        if own.shape[1]:
            low, high = (torch.stack([epoch.nanquantile(share) for epoch in own]) for share in (TAIL, 1 - TAIL))
            lines = {"mean": _plain(own.nanmean(1)), "low": _plain(low), "high": _plain(high)}
            found.append({"name": name if own.shape[1] < losses.shape[1] else "all images", "count": own.shape[1], **lines})
    return found


def _plain(line: Tensor) -> list[float | None]:
    return [float(f"{value:.4g}") if abs(value) < float("inf") else None for value in line.tolist()]
