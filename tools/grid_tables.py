"""Tables of a grid's cards, for the page of results and for README.md."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from scipy import stats

from mithridate import methods

Row = Mapping[str, Any]
Threat = tuple[str, float | None]
Defense = tuple[str, str]
PLACE = ("dataset", "model")
MODELS = ("none", "trainer", "repair")
ROLES = ("none", "trainer", "repair", "detector", "screen", "inspector")
LEGEND = (
    "Models (no defense, trainers, repairs): clean accuracy / ASR. Detectors and screens: TPR at the false-positive rate that came about,",
    "of detectors with AUROC.",
    "Inspectors: share of right verdicts, class included. Several seeds: their mean ± standard deviation, and how many. A dead attack or a",
    "failed cell stands as such and is in no mean; the last rows are means over the attacks that all columns have a number for, with how",
    "many these are. A column with a gap (-) among the attacks of a rate has no mean there.",
)


def tables(rows: Iterable[Row]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """For each data set and model of a grid: a title, the heads, and one row a threat, then the means."""
    judged = [row for row in rows if row["kind"] == "judgment"]
    for place in sorted({_place(row) for row in judged}):
        here = [row for row in judged if _place(row) == place]
        defenses = sorted({_defense(row) for row in here}, key=lambda each: (ROLES.index(each[0]), each[1]))
        threats = sorted({_threat(row) for row in here}, key=lambda each: (each[0] != "none", each))
        cells: dict[tuple[Threat, Defense], list[Row]] = {(_threat(row), _defense(row)): [] for row in here}
        for row in here:
            cells[_threat(row), _defense(row)].append(row)
        body = [[*_named(threat), *(_cell(cells.get((threat, each), [])) for each in defenses)] for threat in threats]
        means = [_mean_row(rate, threats, defenses, cells) for rate in sorted({t[1] for t in threats if t[1] is not None}, reverse=True)]
        yield " ".join(place), ["threat", "rate", *(f"`{methods.brief(name)}`" for _, name in defenses)], body + means


def detectors(rows: Iterable[Row]) -> tuple[list[str], list[list[str]]]:
    """Heads, and one row a place and detector: AUROC over all that it was judged on and that works, its worst, TPR at FPR at both rates."""
    judged = [row for row in rows if row["kind"] == "judgment" and row["status"] == "done" and row["config"]["role"] == "detector"]
    heads = ["data", "model", "detector", "threats", "mean AUROC", "worst AUROC", "TPR at FPR, 1 %", "TPR at FPR, 5 %"]
    groups: dict[tuple[str, ...], dict[Threat, list[Row]]] = {}
    for row in judged:
        if "tpr_5" in row["metrics"]:
            groups.setdefault((*_place(row), row["config"]["defense"]), {}).setdefault(_threat(row), []).append(row)
    return heads, [[*place[:-1], f"`{place[-1]}`", *_ranked(threats)] for place, threats in sorted(groups.items())]


def realised(rows: Iterable[Row]) -> str:
    """How often the false-positive rates of detectors lie where they should, given how few images set the thresholds; empty without any."""
    judged = [row for row in rows if row["status"] == "done" and row["config"].get("role") == "detector" and "fpr_5" in row["metrics"]]
    if not judged:
        return ""
    hits = {asked: sum(_expected(row, name, asked) for row in judged) for name, asked in (("fpr", 0.01), ("fpr_5", 0.05))}
    told = ", ".join(f"{count} of {len(judged)} at an asked {asked:.0%}" for asked, count in hits.items())
    return f"False-positive rates within the 95 % interval of the asked one (beta-binomial: calibration and test images are few): {told}.\n"


def _expected(row: Row, name: str, asked: float) -> bool:
    """Whether a realised rate lies in the central 95 % of what a threshold does that so many of the calibration images exceed."""
    known, test = row["config"]["protocol"]["calibration"], row["config"]["protocol"]["test"]
    low, high = _central(known, test, asked)
    return bool(low <= row["metrics"][name][0] * test <= high)


@functools.cache
def _central(known: int, test: int, asked: float) -> tuple[float, float]:
    above = max(1, int(asked * (known + 1)))
    low, high = stats.betabinom(test, above, known + 1 - above).ppf([0.025, 0.975])
    return float(low), float(high)


def _ranked(threats: Mapping[Threat, Sequence[Row]]) -> list[str]:
    """Count, mean and worst AUROC of a detector's threats, and its mean TPR at mean FPR; each threat a mean over its seeds."""
    auroc = {threat: statistics.fmean(card["metrics"]["auroc"] for card in cards) for threat, cards in threats.items()}
    worst = min(auroc, key=lambda threat: auroc[threat])
    told = [
        str(len(auroc)),
        f"{statistics.fmean(auroc.values()):.3f}",
        f"{auroc[worst]:.3f} ({' '.join(_named(worst)).removesuffix(' -')})",
    ]
    for names in (("tpr", "fpr"), ("tpr_5", "fpr_5")):
        told.append(" at ".join(f"{100 * statistics.fmean(_mean(cards, name) for cards in threats.values()):.1f}" for name in names))
    return told


def summary(rows: Iterable[Row]) -> tuple[list[str], list[list[str]]]:
    """Heads, and one row a defense: its mean over the backdoors that are alive, its worst one, and the clean twin, for each place."""
    judged = [row for row in rows if row["kind"] == "judgment" and row["status"] == "done" and row["config"]["evasion"] is None]
    places = sorted({_place(row) for row in judged})
    defenses = sorted({_defense(row) for row in judged}, key=lambda each: (ROLES.index(each[0]), each[1]))
    heads = ["defense", *(f"{' '.join(place)}: {what}" for place in places for what in ("mean", "worst", "clean twin"))]
    return heads, [
        [f"`{methods.brief(each[1])}`", *(cell for place in places for cell in _summed(each, place, judged))] for each in defenses
    ]


def _summed(defense: Defense, place: tuple[str, ...], judged: Sequence[Row]) -> tuple[str, str, str]:
    mine = [row for row in judged if _place(row) == place and _defense(row) == defense]
    groups = {threat: [row for row in mine if _threat(row) == threat] for threat in sorted({_threat(row) for row in mine}, key=str)}
    clean = groups.pop(("none", None), [])
    if not groups:
        return "-", "-", _cell(clean)
    worst = min(groups, key=lambda threat: _merit(groups[threat]))
    mean, lowest = _average(defense, list(groups.values())), f"{_cell(groups[worst])} ({' '.join(_named(worst))})"
    return f"{mean} (n = {len(groups)})", lowest, _cell(clean)


def _merit(cards: Sequence[Row]) -> float:
    """More is better for the defender."""
    names = cards[0]["metrics"]
    if "right" in names:
        return statistics.fmean(card["metrics"]["right"] for card in cards)
    return _mean(cards, "tpr") if "tpr" in names else -_mean(cards, "asr")


def _place(row: Row) -> tuple[str, ...]:
    return tuple(str(row["config"][name]) for name in PLACE)


def _defense(row: Row) -> Defense:
    return row["config"]["role"], row["config"]["defense"]


def _threat(row: Row) -> Threat:
    config = row["config"]
    return config["evasion"] or config["attack"] or "none", config["dose"].get("rate")


def _named(threat: Threat) -> list[str]:
    name, rate = threat
    return ["none (clean twin)" if name == "none" else f"`{name}`", "-" if rate is None else f"{rate:g}"]


def _cell(cards: Sequence[Row]) -> str:
    """One entry of the table."""
    done = [card for card in cards if card["status"] == "done"]
    if not cards:
        return "-"
    if not done:
        shown = cards if all("asr" in card["metrics"] for card in cards) else []
        return f"**{cards[0]['status']}**" + (f" ({_said(shown)})" if shown else "")
    return _said(done)


def _said(cards: Sequence[Row]) -> str:
    """What cards of one role come to, on average."""
    role, names = cards[0]["config"]["role"], set.intersection(*(set(card["metrics"]) for card in cards))
    if role == "inspector":
        right = sum(card["metrics"]["right"] for card in cards)
        return ("yes" if right else "**no**") if len(cards) == 1 else f"{right} of {len(cards)}"
    count = f" (n = {len(cards)})" if len(cards) > 1 else ""
    if role in MODELS:
        return " / ".join(_percent(cards, name) for name in ("clean_accuracy", "asr") if name in names) + count
    found = f"{_percent(cards, 'tpr')} at " if "tpr" in names else "" if "successful" not in names else "none works, "
    ranked = (
        f", AUROC {statistics.fmean(card['metrics']['auroc'] for card in cards):.3f}" if role == "detector" and "auroc" in names else ""
    )
    return f"{found}{_percent(cards, 'fpr')}{ranked}{count}"


def _percent(cards: Sequence[Row], name: str) -> str:
    """The mean, and the standard deviation where there are several."""
    spread = f" ± {100 * statistics.stdev(_values(cards, name)):.1f}" if len(cards) > 1 else ""
    return f"{100 * _mean(cards, name):.1f}{spread}"


def _mean(cards: Sequence[Row], name: str) -> float:
    return statistics.fmean(_values(cards, name))


def _values(cards: Sequence[Row], name: str) -> list[float]:
    return [card["metrics"][name][0] for card in cards]


def _mean_row(
    rate: float | None,
    threats: Sequence[Threat],
    defenses: Sequence[Defense],
    cells: Mapping[tuple[Threat, Defense], Sequence[Row]],
) -> list[str]:
    """Means over the backdoors of one rate that all defenses were judged on, but for those that a plan tries on a part of them only."""

    def done(threat: Threat, defense: Defense) -> list[Row]:
        return [card for card in cells.get((threat, defense), []) if card["status"] == "done"]

    mine = [threat for threat in threats if threat[1] == rate]
    asked = {each for each in defenses if all((threat, each) in cells for threat in mine)}
    common = [threat for threat in mine if all(done(threat, each) for each in asked)]
    means = (_average(each, [done(t, each) for t in common]) if common and each in asked else "-" for each in defenses)
    return [f"mean over {len(common)} of {len(mine)}", f"{rate:g}", *means]


def _average(defense: Defense, groups: Sequence[Sequence[Row]]) -> str:
    """The mean over attacks of the means over seeds."""
    if defense[0] == "inspector":
        cards = [card for group in groups for card in group]
        return f"{sum(card['metrics']['right'] for card in cards)} of {len(cards)}"
    names = ("clean_accuracy", "asr") if defense[0] in MODELS else ("tpr", "fpr")
    means = [f"{100 * statistics.fmean(_mean(group, name) for group in groups):.1f}" for name in names]
    return (" / " if defense[0] in MODELS else " at ").join(means)
