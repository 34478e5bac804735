"""Numbers of other people beside ours: what a plan lists, checked and matched with the cells it is about; nothing is ever added."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from mithridate.errors import BadSpec
from mithridate.report.grid_labels import methods
from mithridate.report.grid_measures import FIXED, is_robust
from mithridate.report.grid_rows import Cards

KNOWN = tuple(dict.fromkeys(measure.name for measure in FIXED if measure.part == "metrics"))


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class Published:
    """One number that somebody else measured: one table `[[published]]` of a plan.

    Attributes:
        paper: who says so, such as `Zhu et al., ICCV 2023`.
        source: `published` by the method's authors, or `independent`, by others.
        dataset: as the plan calls it.
        model: architecture, as the plan calls it where it is the same, else in the paper's words.
        attack: trigger, planter or evasion, by name (`badnets`, whatever its settings) or specification; None for a clean model.
        rate: poison rate; None where the paper does not say, or there is none.
        defense: by name, specification, or `inspector+repair`; `none` for the undefended model.
        metric: as on our cards: `asr`, `clean_accuracy`, `der`, `tpr`, `fpr`, `auroc`, `right`, `robust SPEC` and so on.
        value: a share in [0, 1].
        where: where in the paper, such as `table 2`.
    """

    paper: str
    source: Literal["published", "independent"]
    dataset: str
    model: str
    attack: str | None = None
    rate: float | None = None
    defense: str
    metric: str
    value: float
    where: str

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 1:
            raise ValueError(f"value must be a share in [0, 1], got {self.value}")
        if self.metric not in KNOWN and not is_robust(self.metric):
            raise ValueError(f"metric must be one of {', '.join(KNOWN)} or robust SPEC, got {self.metric!r}")


def published(tables: Iterable[Mapping[str, Any]]) -> list[Published]:
    """The numbers in the tables `[[published]]` of a plan.

    Raises:
        BadSpec: an entry that is unknown, missing or of the wrong type; the text says in which table, counted from 1.
    """
    found = []
    for i, table in enumerate(tables, 1):
        try:
            found.append(_ADAPTER.validate_python(dict(table)))
        except ValidationError as error:
            first: Any = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            said = str(first["ctx"]["error"]) if first["type"] == "value_error" else f"{place}: {first['msg'].lower()}"
            raise BadSpec(f"published, table {i}: {said}") from error
    return found


def beside(numbers: Sequence[Published], cards: Cards, threats: Sequence[int], defenses: Sequence[int]) -> list[dict[str, Any]]:
    """Each number with the cells that it is about, as JSON can hold it.

    A cell must have its data set, attack and defense. Where no such cell has its model and rate too, those that come closest
    are taken, and `differs` says in what.

    Args:
        numbers: of other people.
        cards: ours.
        threats: place of each card's threat.
        defenses: place of each card's defense.
    """
    judged = [i for i, kind in enumerate(cards.fields["kind"]) if kind == "judgment"]
    first = {(threats[i], defenses[i]): i for i in reversed(judged)}
    by_dataset: dict[str, list[tuple[tuple[int, int], int]]] = {}
    for pair, i in sorted(first.items()):
        by_dataset.setdefault(cards.fields["dataset"][i], []).append((pair, i))
    return [asdict(each) | _closest(each, cards, by_dataset.get(each.dataset, [])) for each in numbers]


def _closest(number: Published, cards: Cards, pairs: Sequence[tuple[tuple[int, int], int]]) -> dict[str, Any]:
    """The matching cells with the fewest differences, and these differences."""
    found: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for pair, i in pairs:
        told = {name: texts[i] for name, texts in cards.fields.items()}
        if _means(number.attack or "", told["evasion"] or told["attack"]) and _means(number.defense, told["defense"]):
            found.setdefault(_differences(number, told), []).append(pair)
    differs = min(found, key=lambda each: (len(each), each), default=())
    return {"cells": found.get(differs, []), "differs": list(differs)}


def _means(said: str, spec: str) -> bool:
    """Whether a name or specification means ours."""
    return said == spec or (bool(spec) and said == "+".join(methods(spec)))


def _differences(number: Published, told: Mapping[str, str]) -> tuple[str, ...]:
    model = [] if number.model == told["model"] else [f"our model is {told['model']}"]
    same = (number.rate is None and not told["rate"]) or (number.rate is not None and told["rate"] == str(number.rate))
    ours = f"{100 * float(told['rate']):g} %" if told["rate"] else "none"
    rate = [] if same else ["the paper does not tell its rate"] if number.rate is None else [f"our rate is {ours}"]
    return (*model, *rate)


_ADAPTER = TypeAdapter(Published)
