"""From a plan to its cells: every attack with every defense that it concerns, each victim once."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mithridate import methods
from mithridate.bench.cell import Cell, cell
from mithridate.bench.plan import Plan, Threat
from mithridate.datasets import DATASETS
from mithridate.errors import BadSpec
from mithridate.files import sha256
from mithridate.roles import Planter, Role
from mithridate.spec import entry_of, find, to_spec

THREATS: tuple[Role, ...] = ("trigger", "planter", "evasion")
DEFENSES: tuple[Role, ...] = ("trainer", "screen", "detector", "inspector", "repair")
OF_TRAINING_DATA = ("trainer", "screen")  # roles that mean nothing where the attacker trains the model


@dataclass(frozen=True)
class Defense:
    """A defense of a plan, parsed once: its specification, role and method, and the inspector that a repair listens to."""

    spec: str
    role: str
    method: Any = None
    inspector: Defense | None = None


NONE = Defense("none", "none")


def cells(plan: Plan) -> list[Cell]:
    """Every cell of a plan, each after the ones it needs.

    Raises:
        BadSpec: an unknown method, or a pattern that matches none.
        ValueError: no adaptive attack, and no word in the plan why not.
    """
    threats = [(threat, method) for threat in plan.threats for method in _methods(threat.method, THREATS)]
    if not any("adaptive" in entry_of(method).scope for _, method in threats) and "adaptive" not in plan.waived:
        raise ValueError("threats must hold an adaptive attack, such as adap_blend or detector_pgd, or [waived] say why not; got none")
    defenses = _defenses(plan.defenses)
    found: dict[str, Cell] = {}
    for dataset in plan.datasets:
        for model in plan.models:
            for seed in plan.seeds:
                for each in _Bed(plan, dataset, model, seed).cells(threats, defenses):
                    found.setdefault(each.key, each)
    return list(found.values())


class _Bed:
    """One data set, architecture and seed: a clean twin and everything that is compared with it."""

    def __init__(self, plan: Plan, dataset: str, model: str, seed: int) -> None:
        self.plan = plan
        self.flips = DATASETS[dataset].flips if dataset in DATASETS else True
        spec = plan.trainers.get(dataset, plan.trainer)
        self.trainer = self._suited(methods.parse(spec, "trainer"), spec)
        self.place: dict[str, Any] = {
            "dataset": dataset,
            "images": plan.images,
            "model": model,
            "trainer": to_spec(self.trainer),
            "seed": seed,
        }
        if plan.size is not None:  # left out where it says nothing, so that older keys stay
            self.place["size"] = list(plan.size)
        if dataset not in DATASETS:
            self.place["content"] = _content(dataset)
        self.terms = {"robustness": list(plan.robustness), "protocol": dataclasses.asdict(plan.protocol)}
        self.measures = [methods.parse(spec, "evasion") for spec in plan.robustness]

    def cells(self, threats: Sequence[tuple[Threat, Any]], defenses: Sequence[Defense]) -> Iterator[Cell]:
        """The twin, then every threat's cells."""
        twin = self._victim(None, {}, None)
        yield from self._judged(twin, twin, None, defenses)
        for threat, method in threats:
            if entry_of(method).role == "evasion":
                yield from (self._judgment(twin, twin, each, evasion=method) for each in defenses if _unseen(each, method))
                continue
            for victim, chosen in self._victims(threat, method):
                yield from self._judged(victim, twin, chosen, defenses)

    def _victims(self, threat: Threat, method: Any) -> Iterator[tuple[Cell, Any]]:
        if isinstance(method, Planter):
            planter = self._suited(dataclasses.replace(method, target=threat.target), threat.method)  # type: ignore[type-var]
            yield self._victim(planter, {"target": threat.target}, None), planter
            return
        for rate in self.plan.rates if threat.rates is None else threat.rates:
            yield self._victim(method, threat.dose | {"rate": rate}, rate), method

    def _victim(self, attack: Any, dose: dict[str, Any], rate: float | None) -> Cell:
        config = self.place | {"attack": None if attack is None else to_spec(attack), "dose": dose}
        return cell("victim", config, [self.trainer] if attack is None else [self.trainer, attack])

    def _judged(self, victim: Cell, twin: Cell, attack: Any, defenses: Sequence[Defense]) -> Iterator[Cell]:
        yield victim
        undefended = self._judgment(victim, twin, NONE)
        yield undefended
        planted = isinstance(attack, Planter)
        for defense in map(self._at_home, defenses):
            if planted and defense.role in OF_TRAINING_DATA:
                continue
            if defense.spec == self.place["trainer"]:  # the victim itself is what it gives
                continue
            if defense.inspector is not None:
                yield self._judgment(victim, twin, defense.inspector)
            yield self._judgment(victim, twin, defense, undefended=undefended)

    def _judgment(self, victim: Cell, twin: Cell, defense: Defense, *, undefended: Cell | None = None, evasion: Any = None) -> Cell:
        config = {**victim.config, "defense": defense.spec, "role": defense.role, "evasion": None if evasion is None else to_spec(evasion)}
        needs = {"victim": victim} | ({} if twin is victim else {"twin": twin})
        if defense.role in ("trainer", "repair") and undefended is not None:
            needs["undefended"] = undefended
        if defense.inspector is not None:
            needs["inspection"] = self._judgment(victim, twin, defense.inspector)
        run = [method for method in (defense.method, evasion) if method is not None]
        if defense.role in ("none", "trainer", "repair"):
            run += self.measures
        return cell("judgment", config | self.terms, run, needs)

    def _at_home(self, defense: Defense) -> Defense:
        """A trainer with the mirroring of these data; other defenses as they are."""
        if defense.role != "trainer":
            return defense
        suited = self._suited(defense.method, defense.spec)
        return Defense(to_spec(suited), "trainer", suited)

    def _suited(self, method: Any, spec: str) -> Any:
        """With the mirroring that the data allow, unless the plan says otherwise."""
        known = {each.name for each in dataclasses.fields(method)}
        return dataclasses.replace(method, flip=self.flips) if "flip" in known and "flip=" not in spec else method


def _unseen(defense: Defense, evasion: Any) -> bool:
    """Whether a defense is a detector that did not learn from such examples; one that did would be asked what it knows by heart."""
    return defense.role == "detector" and entry_of(evasion).name not in getattr(defense.method, "learns", ())


@functools.cache
def _content(source: str) -> str:
    """16 hex digits that change with the user's own images."""
    place, digest = Path(source), hashlib.sha256()
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if path.is_file():
            digest.update(f"{path.relative_to(place).as_posix()} {sha256(path)}".encode())
    return digest.hexdigest()[:16]


def _defenses(specs: Sequence[str]) -> list[Defense]:
    found = []
    for spec in specs:
        first, plus, second = spec.partition("+")
        if not plus:
            found += [Defense(to_spec(method), entry_of(method).role, method) for method in _methods(spec, DEFENSES)]
            continue
        inspector, repair = methods.parse(first.strip(), "inspector"), methods.parse(second.strip(), "repair")
        told = Defense(to_spec(inspector), "inspector", inspector)
        found.append(Defense(f"{told.spec}+{to_spec(repair)}", "repair", repair, told))
    return found


def _methods(spec: str, roles: Sequence[Role]) -> list[Any]:
    """The methods that a specification or a pattern means."""
    name = spec.partition(":")[0]
    if not any(sign in name for sign in "*?["):
        method = methods.parse(spec)
        if entry_of(method).role not in roles:
            raise BadSpec(f"{spec!r} is a {entry_of(method).role}, expected one of {', '.join(roles)}")
        return [method]
    entries = [entry for role in roles for entry in find(spec, role)]
    if not entries:
        raise BadSpec(f"pattern {spec!r} matches no {', '.join(roles)}")
    return [entry.method() for entry in entries]
