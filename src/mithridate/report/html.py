"""One self-contained HTML file from an audit: a verdict in one sentence, then pictures, then tables, then how it was done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mithridate.report import answers, figures, pixels, words
from mithridate.report.pictures import Candidates, Pictures
from mithridate.report.schema import AuditReport, Repaired

SHOWN = 24  # images in a contact sheet
LISTED = 500  # file names in a list; all of them are in report.json
MARKS = 10  # reversed triggers shown


def render(report: AuditReport, pictures: Pictures | None = None) -> str:
    """The whole report as one HTML document that asks the network for nothing and runs no script.

    Args:
        report: the numbers.
        pictures: what to draw beside them; what is missing is left out.
    """
    pictures = pictures or Pictures()
    template = environment().get_template("template.html.j2")
    return template.render(
        r=report,
        p=pictures,
        answers=answers.answers(report),
        tone=answers.verdict_tone(report),
        charts=_charts(report, pictures),
        marks=_marks(pictures.candidates, report.target) if pictures.candidates else [],
        settings=list(flatten(report.config)),
        limits={"shown": SHOWN, "listed": LISTED},
        style=Markup((Path(__file__).parent / "style.css").read_text("utf-8")),
    )


def summary_html(report: AuditReport) -> str:
    """A small card for notebooks: the verdict and the seven answers, styled inline so that it can stand in any page."""
    return environment().get_template("card.html.j2").render(r=report, answers=answers.answers(report), tone=answers.verdict_tone(report))


def environment() -> Environment:
    """Escapes everything, spells out characters that could disguise a name, and fails on a misspelled variable."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: words.printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
    environment.filters.update(
        pct=lambda share: words.exact(share, words.percent(share)),
        num=lambda value: words.exact(value, words.compact(value)),
        count=lambda value: words.exact(value, f"{value:,}"),
        seconds=lambda value: words.exact(value, words.duration(value)),
        chance=lambda p: words.exact(p, words.chance(p)),
        fine=lambda value: words.exact(value, f"{value:.4f}"),
        rate=lambda share: words.exact(share, f"{100 * share:g}%"),
        tail=words.tail,
        image=pixels.image,
    )
    environment.globals.update(
        budget=words.budget,
        plural=words.plural,
        kinds=words.KINDS,
        class_name=words.class_name,
        glossary=words.GLOSSARY,
        labels=answers.LABELS,
        meaning=answers.meaning,
        judged=answers.judged,
        certainty=answers.certainty,
        advice=answers.advice,
        amplified=pixels.amplified,
    )
    return environment


def _charts(report: AuditReport, pictures: Pictures) -> dict[str, Any]:
    """Every chart there is data for; the template tests for the names."""
    charts: dict[str, Any] = {"accuracy": _accuracy(report), "suspicion": _suspicion(report)}
    if report.robust_accuracy:
        charts["robust"] = _robust(report)
    if pictures.landing is not None:
        counts = [float(value) for value in pictures.landing]
        charts["landing"] = figures.per_class(counts, report.classes, report.target, "Where adversarial examples land, by class")
    if pictures.scores is not None:
        charts["scores"] = figures.histogram(pictures.scores, "Scores of clean and suspect images, and the threshold")
    if pictures.view is not None:
        charts["view"] = figures.scatter(pictures.view, "Activation view: one dot an image")
    if report.repair is not None:
        charts["repair"] = figures.pairs(_pairs(report.repair), "Original and repaired model side by side")
    return charts


def _accuracy(report: AuditReport) -> Markup:
    guess = 1 / max(len(report.classes), 1)
    measured = figures.Bar(
        "this model", report.clean_accuracy, words.percent(report.clean_accuracy), interval=report.clean_accuracy_interval
    )
    return figures.bars([measured, figures.Bar("blind guessing", guess, words.percent(guess))], "Accuracy on clean images", top=1.0)


def _robust(report: AuditReport) -> Markup:
    rows = [figures.Bar("no attack", report.clean_accuracy, words.percent(report.clean_accuracy))]
    rows += [
        figures.Bar(_label(row.attack, row.eps), row.accuracy, words.percent(row.accuracy), hot=True) for row in report.robust_accuracy
    ]
    return figures.bars(rows, "Accuracy under attack", top=1.0)


def _label(attack: str, eps: float) -> str:
    return f"{attack.partition(':')[0]} {words.budget(eps, attack)}"


def _suspicion(report: AuditReport) -> list[tuple[Markup, str]]:
    """One chart and its note for each inspector, in the order of the evidence."""
    return [
        figures.per_class(each.per_class, report.classes, each.target, f"Suspicion of each class, by {each.inspector}")
        for each in report.evidence
    ]


def _pairs(repair: Repaired) -> list[figures.Pair]:
    """Every quantity measured on both models, with the direction that is better."""
    rows = [figures.Pair("Clean accuracy (higher is better)", repair.clean_accuracy_before, repair.clean_accuracy_after)]
    if repair.candidate_asr_before is not None and repair.candidate_asr_after is not None:
        rows.append(figures.Pair("Power of the mark we found (lower is better)", repair.candidate_asr_before, repair.candidate_asr_after))
    after = {(row.attack, row.eps): row.accuracy for row in repair.robust_after}
    for row in repair.robust_before:
        if (row.attack, row.eps) in after:
            label = f"Accuracy under {_label(row.attack, row.eps)} (higher is better)"
            rows.append(figures.Pair(label, row.accuracy, after[row.attack, row.eps]))
    return rows


def _marks(candidates: Candidates, target: int | None) -> list[tuple[int, Markup, float]]:
    """Reversed triggers, smallest first but the target before all: class, picture, and size as a share of the image."""
    shares = candidates.masks.float().mean(dim=(1, 2, 3)).tolist()
    order = sorted(range(len(shares)), key=lambda i: (candidates.classes[i] != target, shares[i]))
    marked = candidates.masks.float() * candidates.patterns.float()
    return [(candidates.classes[i], pixels.image(marked[i], "reversed trigger"), shares[i]) for i in order[:MARKS]]


def flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as `outer.inner` names with their values; tables in a list are numbered from 1."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            yield from flatten({str(i): item for i, item in enumerate(value, 1)}, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
