"""Short names for the rows and columns of a grid: what all of them share is said once, what sets them apart always."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mithridate.methods import brief, find
from mithridate.report.grid_rows import THREAT, Cards, distinct

GROUP = ("dataset", "model", "images", "trainer", "robustness", "protocol")  # what threats of one block of the heat map share
ALWAYS = ("dataset", "model")  # of these, what is said even if it is the same everywhere


@dataclass(frozen=True)
class Threat:
    """A row of the heat map: everything of a judgment's cell but the defense and the seed.

    Attributes:
        group: what it is made on, such as `cifar10, resnet18`.
        name: the attack, shortened where that leaves no doubt.
        spec: the attack in full; empty for none.
        rate: poison rate as text; empty where there is none.
        kind: `clean`, `backdoor` or `evasion`.
    """

    group: str
    name: str
    spec: str
    rate: str
    kind: str


def threats(cards: Cards) -> tuple[list[Threat], list[int]]:
    """Every threat, and for each card the place of its own; victims have the one that they are trained under."""
    texts = list(zip(*(cards.fields[name] for name in THREAT), strict=True))
    found, codes = _numbered(texts)
    told: list[dict[str, str]] = [dict(zip(THREAT, each, strict=True)) for each in found]
    varying = [name for name in GROUP if name in ALWAYS or len({each[name] for each in told if each["robustness"]}) > 1]
    names = _names([(each["evasion"] or each["attack"], each["dose"]) for each in told])
    differing = _differing([each["protocol"] for each in told if each["protocol"]])
    return [_threat(each, name, varying, differing) for each, name in zip(told, names, strict=True)], codes


def short(specs: Iterable[str]) -> dict[str, str]:
    """Specification -> its method's name, or, where several specifications have the same name, all of it, presets by name."""
    specs = list(dict.fromkeys(specs))
    names = [" + ".join(methods(spec)) for spec in specs]
    return {spec: name if names.count(name) == 1 else brief(spec) for spec, name in zip(specs, names, strict=True)}


def methods(spec: str) -> list[str]:
    """Names of the methods in a specification: one, or those of an inspector and the repair that listens to it."""
    return [match[0] for part in re.split(r"\+(?=[a-z_])", spec) if (match := re.match(r"\w+", part))] or [spec]


def claims(specs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Name -> what the registry says of each method in the specifications; methods it does not know are left out."""
    names = {name for spec in specs for name in methods(spec)}
    return {
        entry.name: {"role": entry.role, "summary": entry.summary, "scope": list(entry.scope), "cost": entry.cost, "paper": entry.paper}
        for entry in find()
        if entry.name in names
    }


def _numbered(texts: Sequence[tuple[str, ...]]) -> tuple[list[tuple[str, ...]], list[int]]:
    places: dict[tuple[str, ...], int] = {}
    codes = [places.setdefault(each, len(places)) for each in texts]
    return list(places), codes


def _names(attacks: Sequence[tuple[str, str]]) -> list[str]:
    """A name for each attack and dose; of the dose, the rate has a place of its own and only what sets attacks apart is told."""
    brief = short(spec for spec, _ in attacks if spec)
    doses: dict[str, set[str]] = {}
    for spec, dose in attacks:
        doses.setdefault(spec, set()).add(_beside_rate(dose))
    brief[""] = "clean, no attack"
    return [brief[spec] + (f" ({_beside_rate(dose)})" if len(doses[spec]) > 1 else "") for spec, dose in attacks]


def _beside_rate(dose: str) -> str:
    parts = json.loads(dose or "{}")
    return ", ".join(f"{name} {value}" for name, value in sorted(parts.items()) if name != "rate")


def _threat(told: Mapping[str, str], name: str, varying: Sequence[str], differing: Sequence[str]) -> Threat:
    rate = json.loads(told["dose"] or "{}").get("rate")
    kind = "evasion" if told["evasion"] else "backdoor" if told["attack"] else "clean"
    group = ", ".join(filter(None, (_shared(part, told[part], differing) for part in varying)))
    return Threat(group, name, told["evasion"] or told["attack"], "" if rate is None else json.dumps(rate), kind)


def _shared(part: str, text: str, differing: Sequence[str]) -> str:
    """What a block's heading says of one field."""
    if part == "images":
        return f"{text or 'all'} images"
    if part == "protocol":
        protocol = json.loads(text or "{}")
        return ", ".join(f"{name} {protocol[name]}" for name in differing if name in protocol)
    if part == "robustness":
        return "measured under " + (", ".join(json.loads(text or "[]")) or "no attack")
    return text


def _differing(protocols: Sequence[str]) -> list[str]:
    """Entries of the protocols that are not the same in all of them."""
    tables = [json.loads(text) for text in distinct(protocols)[0]]
    names = {name for table in tables for name in table}
    return sorted(name for name in names if len({json.dumps(table.get(name)) for table in tables}) > 1)
