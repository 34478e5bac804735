"""What the three views hold: populations of inputs, what a model does with each of them, and how far apart they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Kind = Literal["benign", "adversarial", "backdoor", "suspect"]


@dataclass(frozen=True, eq=False)
class Population:
    """Inputs of one origin.

    Attributes:
        name: for the reader, such as `pgd:eps=0.03`.
        kind: what they are; `suspect` where nobody knows.
        images: (n, c, h, w); uint8, or float in [0, 1].
        labels: (n,) classes that they truly are of; -1 where nobody knows.
        tried: how many inputs were made; only those that reach their goal are kept.
    """

    name: str
    kind: Kind
    images: Tensor
    labels: Tensor
    tried: int


@dataclass(frozen=True, eq=False)
class Level:
    """Label-change rates at one strength of mutation.

    Attributes:
        level: the strength, in standard deviations of the weights.
        chosen: whether the detector itself would take it, by clean images alone.
        rates: population -> (n,) share of mutants that give another class than the model, in [0, 1].
    """

    level: float
    chosen: bool
    rates: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Depth:
    """One layer of the class path.

    Attributes:
        layer: its tap.
        classes: population -> (n,) class that the clean neighbors there have.
        points: population -> (n, 2) coordinates on the first two principal components of the clean images.
    """

    layer: str
    classes: Mapping[str, Tensor]
    points: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Measure:
    """One number an input, whose distribution the views compare.

    Attributes:
        view: `sensitivity`, `activation space` or `feature space`.
        name: what it is.
        note: which way it should go, in a few words.
        values: population -> (n,).
    """

    view: str
    name: str
    note: str
    values: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Gap:
    """How far apart two populations are in one view.

    Attributes:
        view: as of `Measure`.
        name: of the measure, or of the layer.
        first: one population.
        second: the other.
        auroc: in [0, 1], 0.5 where the measure does not tell them apart, above where the second is higher; None for more than one number.
        mmd: maximum mean discrepancy, the square root of its unbiased square, 0 where that is negative.
        p_value: of "no difference", by permutation.
    """

    view: str
    name: str
    first: str
    second: str
    auroc: float | None
    mmd: float
    p_value: float


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything that the page of `mithridate analyse` shows.

    Attributes:
        title: of the page.
        populations: in the order of the page, the clean images first.
        levels: from weak to strong mutation.
        depths: the class path from the input to the output.
        predicted: population -> (n,) the model's own answer.
        measures: one number an input each.
        gaps: of every pair with the clean images, and of adversarial with backdoor inputs.
        classes: names.
    """

    title: str
    populations: tuple[Population, ...]
    levels: tuple[Level, ...]
    depths: tuple[Depth, ...]
    predicted: Mapping[str, Tensor]
    measures: tuple[Measure, ...]
    gaps: tuple[Gap, ...]
    classes: tuple[str, ...]
