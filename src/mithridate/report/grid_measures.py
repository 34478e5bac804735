"""The numbers that a grid's page knows: what they are called, which roles they are of, and which way is better."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

MODELS = ("none", "trainer", "repair")  # roles that end in a model
DEFENSES = ("trainer", "screen", "detector", "inspector", "repair")


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number of cards.

    Attributes:
        id: what the page's address calls it.
        label: what readers call it.
        name: on the card.
        roles: of the defenses that have it.
        meaning: one sentence.
        better: which way, if any.
        scale: how it is colored: `share` from 0 to 1 with a neutral middle, `range` and `log` over what there is.
        unit: how it is written: as a percentage, a number up to 1, or seconds.
        part: of the card.
    """

    id: str
    label: str
    name: str
    roles: tuple[str, ...]
    meaning: str
    better: Literal["low", "high", ""] = "high"
    scale: Literal["share", "range", "log"] = "share"
    unit: Literal["percent", "number", "seconds"] = "percent"
    part: Literal["metrics", "seconds"] = "metrics"


FIXED = (
    Measure(
        id="asr",
        label="ASR after",
        name="asr",
        roles=MODELS,
        better="low",
        meaning="Attack success rate: share of images with the trigger that get the attacker's class.",
    ),
    Measure(
        id="accuracy",
        label="Clean accuracy after",
        name="clean_accuracy",
        roles=MODELS,
        scale="range",
        meaning="Share of ordinary images that are named correctly.",
    ),
    Measure(
        id="der",
        label="DER",
        name="der",
        roles=("trainer", "repair"),
        unit="number",
        meaning="Defense effectiveness rate: what it takes from the attack, minus what it costs in accuracy; 1 is perfect, 0.5 no effect.",
    ),
    Measure(
        id="recovered",
        label="Recovered accuracy",
        name="recovered_accuracy",
        roles=MODELS,
        meaning="Share of images with the trigger that get their true class.",
    ),
    Measure(
        id="attacked",
        label="Clean accuracy, attacked classes",
        name="clean_accuracy_attacked",
        roles=MODELS,
        scale="range",
        meaning="Clean accuracy without the images of the target class, or of no source class, which some papers leave out.",
    ),
    Measure(
        id="reactivated",
        label="ASR brought back",
        name="asr_reactivated",
        roles=("repair",),
        better="low",
        meaning="Attack success rate after a few epochs with a few poisoned images: is the backdoor gone, or only asleep?",
    ),
    Measure(
        id="tpr",
        label="TPR",
        name="tpr",
        roles=("detector", "screen"),
        meaning="Share of malicious inputs (of screens: poisoned training images) that are flagged; the threshold never saw one.",
    ),
    Measure(
        id="auroc",
        label="AUROC",
        name="auroc",
        roles=("detector",),
        unit="number",
        meaning="Chance that a malicious input scores higher than a clean one; 0.5 is guessing.",
    ),
    Measure(
        id="fpr",
        label="FPR",
        name="fpr",
        roles=("detector", "screen"),
        better="low",
        scale="range",
        meaning="Share of clean images that are flagged by mistake.",
    ),
    Measure(
        id="tpr5",
        label="TPR at 5 %",
        name="tpr_5",
        roles=("detector",),
        meaning="As TPR, at an asked false-positive rate of 5 %.",
    ),
    Measure(
        id="fpr5",
        label="FPR at 5 %",
        name="fpr_5",
        roles=("detector",),
        better="low",
        scale="range",
        meaning="As FPR, at an asked false-positive rate of 5 %.",
    ),
    Measure(
        id="residual",
        label="Residual ASR",
        name="residual_asr",
        roles=("detector",),
        better="low",
        meaning="Share of malicious inputs that reach their goal and are not refused.",
    ),
    Measure(
        id="screen",
        label="Screen AUROC",
        name="auroc",
        roles=("screen",),
        unit="number",
        meaning="Chance that a poisoned training image ranks above a clean one; 0.5 is guessing.",
    ),
    Measure(
        id="top",
        label="Screen top 1 %",
        name="precision_top",
        roles=("screen",),
        meaning="Share of poisoned images among the hundredth that the screen ranks first.",
    ),
    Measure(
        id="right",
        label="Inspector right",
        name="right",
        roles=("inspector",),
        meaning="Right verdict, and of an infected model the right class.",
    ),
    Measure(
        id="seconds",
        label="Seconds",
        name="defense",
        roles=DEFENSES,
        better="",
        scale="log",
        unit="seconds",
        part="seconds",
        meaning="Wall-clock seconds of the defense itself.",
    ),
)


def measures(names: Iterable[str]) -> list[dict[str, Any]]:
    """Every measure, with one for each `robust SPEC` among the cards' metric names, as JSON can hold it."""
    specs = sorted(name.removeprefix("robust ") for name in names if is_robust(name) and not name.endswith("_before"))
    return [asdict(each) for each in (*FIXED[:2], *map(_robust, specs), *FIXED[2:])]


def is_robust(name: str) -> bool:
    """Whether a metric is the accuracy under some attack."""
    return name.startswith("robust ")


def _robust(spec: str) -> Measure:
    meaning = "Share of images that are still named correctly after the attack."
    return Measure(id=f"robust {spec}", label=f"Robust accuracy, {spec}", name=f"robust {spec}", roles=MODELS, meaning=meaning)
