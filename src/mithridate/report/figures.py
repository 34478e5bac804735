"""The report's charts: small inline SVGs that follow the page's colors, with a title for every mark and none of a plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from markupsafe import Markup, escape
from torch import Tensor

from mithridate.report.pictures import Scores, View
from mithridate.report.words import compact, percent, printable, shorten

WIDTH = 420  # user units; about the pixels of half a page, and of a phone
BINS = 36
MOST_POINTS = 1500
MOST_BARS = 12
COLORS = 8
SHAPES = (  # one unit mark each, so that groups differ without color
    "M{x} {y}m-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z",
    "M{x} {y}m-2.7 -2.7h5.4v5.4h-5.4z",
    "M{x} {y}m0 -3.4l3.3 5.9h-6.6z",
    "M{x} {y}m0 -3.7l3.7 3.7l-3.7 3.7l-3.7 -3.7z",
)
CROSS = "M{x} {y}m-3.4 -3.4l6.8 6.8m0 -6.8l-6.8 6.8"


def element(name: str, *children: str, **attributes: object) -> Markup:
    """An SVG element; texts are escaped, a trailing underscore is dropped from a name and the others become hyphens."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(f"{value:.1f}" if isinstance(value, float) else str(value))}"'
        for key, value in attributes.items()
    )
    inner = "".join(child if isinstance(child, Markup) else escape(printable(child)) for child in children)
    return Markup(f"<{name}{pairs}>{inner}</{name}>")


def _svg(title: str, height: float, *children: Markup) -> Markup:
    return element("svg", element("title", title), *children, viewBox=f"0 0 {WIDTH} {height:.0f}", role="img", class_="chart")


def _text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> Markup:
    return element("text", content, x=x, y=y, class_=kind, text_anchor=anchor)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


@dataclass(frozen=True)
class Bar:
    """One bar: its label, its value, the text beside it, whether it stands out, and where an interval around it begins and ends."""

    label: str
    value: float
    text: str
    hot: bool = False
    interval: tuple[float, float] | None = None


def bars(rows: Sequence[Bar], title: str, top: float | None = None) -> Markup:
    """Horizontal bars, one a row; negative values grow to the left of zero.

    Args:
        rows: the bars, top to bottom. Values that are not finite are drawn at the end of the axis.
        title: what the chart shows, for readers who cannot see it.
        top: the value at the right end; the largest value when None.
    """
    finite = [row.value for row in rows if math.isfinite(row.value)]
    low, high = min([0.0, *finite]), top if top is not None else max([0.0, *finite])
    left, span, step = 120.0, 226.0, 27.0
    scale = span / ((high - low) or 1.0)

    def place(value: float) -> float:
        return left + (min(max(value, low), high) - low) * scale if not math.isnan(value) else left

    marks = [_bar(row, 6 + i * step, place(0.0), place(row.value)) for i, row in enumerate(rows)]
    whiskers = [_whisker(6 + i * step, place(row.interval[0]), place(row.interval[1])) for i, row in enumerate(rows) if row.interval]
    height = 6 + len(rows) * step
    return _svg(title, height, *marks, *whiskers, _line(place(0.0), 2, place(0.0), height - 4, "axis"))


def _bar(row: Bar, y: float, zero: float, end: float) -> Markup:
    left, width = min(zero, end), max(abs(end - zero), 0.8)
    kind = "bar hot" if row.hot else "bar"
    return element(
        "g",
        element("title", f"{row.label}: {row.text}"),
        _text(112, y + 14, shorten(row.label, 17), "label strong" if row.hot else "label", "end"),
        element("rect", x=left, y=y + 1, width=width, height=18.0, rx=2, class_=kind),
        _text(WIDTH - 2, y + 14, row.text, "value strong" if row.hot else "value", "end"),
    )


def _whisker(y: float, low: float, high: float) -> Markup:
    middle = y + 10
    ends = [_line(x, middle - 4, x, middle + 4, "whisker") for x in (low, high)]
    return element("g", _line(low, middle, high, middle, "whisker"), *ends)


def per_class(values: Sequence[float], classes: Sequence[str], target: int | None, title: str) -> tuple[Markup, str]:
    """Bars of one value a class, the target set apart, and a sentence about the classes left out (empty when all are shown).

    Many classes are cut to the `MOST_BARS` with the largest values, sorted, and the target; few stay in their own order.
    """
    order = list(range(len(values)))
    note = ""
    if len(order) > MOST_BARS:
        order = sorted(order, key=lambda i: -values[i] if not math.isnan(values[i]) else math.inf)[:MOST_BARS]
        note = f"The {MOST_BARS} highest of {len(values)} classes; all others lie below {compact(values[order[-1]])}."
        order += [target] if target is not None and target < len(values) and target not in order else []
    names = [classes[i] if i < len(classes) else str(i) for i in order]
    rows = [Bar(name, values[i], compact(values[i]), hot=i == target) for name, i in zip(names, order, strict=True)]
    return bars(rows, title), note


@dataclass(frozen=True)
class Pair:
    """One quantity in [0, 1] of the original and of the repaired model."""

    label: str
    before: float
    after: float


def pairs(rows: Sequence[Pair], title: str) -> Markup:
    """Two bars a row, the original above the repaired model, on one axis from 0 to 100%."""
    step, drawn = 66.0, []
    for i, row in enumerate(rows):
        y = 8 + i * step
        drawn.append(_text(0, y + 10, row.label, "label strong"))
        drawn.append(_half(row, y + 18, "before"))
        drawn.append(_half(row, y + 36, "after"))
    return _svg(title, 2 + len(rows) * step, *drawn)


def _half(row: Pair, y: float, which: str) -> Markup:
    value = row.before if which == "before" else row.after
    name = "original" if which == "before" else "repaired"
    width = 280.0 * min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0
    return element(
        "g",
        element("title", f"{row.label}, {name}: {percent(value)}"),
        _text(60, y + 12, name, "label", "end"),
        element("rect", x=68.0, y=y, width=280.0, height=15.0, rx=2, class_="rail"),
        element("rect", x=68.0, y=y, width=max(width, 0.8), height=15.0, rx=2, class_=f"bar {which}"),
        _text(WIDTH - 2, y + 12, percent(value), "value", "end"),
    )


def histogram(scores: Scores, title: str) -> Markup:
    """Two histograms on one axis, clean above suspect, with the threshold drawn through both.

    The axis leaves out the outermost percent on each side; what lies there is counted in the first and last column.
    """
    low, high = _range(scores)
    left, right = 8.0, WIDTH - 8.0
    cut = left + (right - left) * (scores.threshold - low) / (high - low)
    rows = (("clean images, held out", scores.clean, "bar calm"), ("your suspect images", scores.suspect, "bar seen"))
    drawn = [_columns(values, name, kind, 118 + 96 * i, (low, high)) for i, (name, values, kind) in enumerate(rows)]
    side = "end" if cut > WIDTH / 2 else "start"
    nudge = -6 if side == "end" else 6
    drawn += [
        _line(cut, 14, cut, 214, "cut"),
        *(_text(left, 44 + 96 * i, f"{name} ({len(values):,})", "label strong") for i, (name, values, _) in enumerate(rows)),
        _text(cut + nudge, 18, f"threshold {compact(scores.threshold)}", "strong hot", side),
        _text(left, 230, f"{compact(low)} or less", "label"),
        _text(right, 230, f"{compact(high)} or more", "label", "end"),
        _text(WIDTH / 2, 230, "more suspicious →", "label", "middle"),
    ]
    return _svg(title, 236, *drawn)


def _range(scores: Scores) -> tuple[float, float]:
    pooled = torch.cat([scores.clean.flatten().double(), scores.suspect.flatten().double()]).cpu()
    pooled = pooled[pooled.isfinite()]
    if not len(pooled):
        return scores.threshold - 1, scores.threshold + 1
    quantiles = [pooled.sort().values[round(q * (len(pooled) - 1))].item() for q in (0.01, 0.99)]
    low, high = min(quantiles[0], scores.threshold), max(quantiles[1], scores.threshold)
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin


def _columns(values: Tensor, name: str, kind: str, base: float, limits: tuple[float, float]) -> Markup:
    low, high = limits
    counts = torch.histc(values.double().nan_to_num().clamp(low, high).cpu(), bins=BINS, min=low, max=high)
    width, tallest = (WIDTH - 16) / BINS, float(counts.max()) or 1.0
    drawn = [_line(8, base, WIDTH - 8, base, "axis")]
    for i, count in enumerate(counts.tolist()):
        if count:
            start = low + (high - low) * i / BINS
            tip = f"{count:.0f} {name} score {compact(start)} to {compact(start + (high - low) / BINS)}"
            tall = max(64 * count / tallest, 1.0)
            drawn.append(element("rect", element("title", tip), x=8 + i * width, y=base - tall, width=width - 1, height=tall, class_=kind))
    return element("g", *drawn)


def scatter(view: View, title: str) -> Markup:
    """The activation view: one mark a point, one color and shape a group, the highlighted group as crosses on top."""
    points = _fit(view.points, 300.0)
    stride = max(1, math.ceil(len(points) / MOST_POINTS))
    order = sorted(set(view.groups.tolist()), key=lambda g: (g == view.highlight, g))
    layers = [_cloud(points[::stride], view.groups[::stride] == group, view, group) for group in order]
    legend, height = _legend(order, view, 318.0)
    return _svg(title, height, element("rect", x=0.5, y=0.5, width=WIDTH - 1, height=304, rx=4, class_="frame"), *layers, *legend)


def _fit(points: Tensor, height: float) -> Tensor:
    """Points scaled into the frame, the outermost half percent of each axis pulled to its edge."""
    points = points.double().cpu().nan_to_num()
    if not len(points):
        return points
    ordered = points.sort(dim=0).values
    low, high = ordered[round(0.005 * (len(points) - 1))], ordered[round(0.995 * (len(points) - 1))]
    unit = ((points - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    return torch.stack([10 + unit[:, 0] * (WIDTH - 20), height - 8 - unit[:, 1] * (height - 18)], dim=1)


def _style(view: View, group: int) -> tuple[str, str]:
    if group == view.highlight:
        return CROSS, "dot cross"
    return SHAPES[(group // COLORS) % len(SHAPES)], f"dot c{group % COLORS}"


def _cloud(points: Tensor, chosen: Tensor, view: View, group: int) -> Markup:
    shape, kind = _style(view, group)
    path = "".join(shape.format(x=f"{x:.0f}", y=f"{y:.0f}") for x, y in points[chosen.cpu()].tolist())
    return element("path", element("title", view.names[group]), d=path, class_=kind)


def _legend(order: Sequence[int], view: View, top: float) -> tuple[list[Markup], float]:
    drawn, x, y = [], 8.0, top
    listed = order if len(order) <= MOST_BARS else [*order[: MOST_BARS - 1], order[-1]]
    for group in listed:
        shape, kind = _style(view, group)
        name = shorten(view.names[group], 26)
        wide = 26 + 7.6 * len(name)
        if x + wide > WIDTH and x > 8:
            x, y = 8.0, y + 18
        drawn += [element("path", d=shape.format(x=f"{x:.0f}", y=f"{y:.0f}"), class_=kind), _text(x + 9, y + 4, name, "label")]
        x += wide
    if len(listed) < len(order):
        y += 18
        drawn.append(_text(8, y + 4, f"and {len(order) - len(listed)} more groups", "label"))
    return drawn, y + 12
