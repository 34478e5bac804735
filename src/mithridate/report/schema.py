"""The versioned schema of `report.json`: what an audit says, in words and numbers that other programs can read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = "1.0"


class Part(BaseModel):
    """Base of all parts: unknown keys are errors, so that a typing slip cannot pass silently."""

    model_config = ConfigDict(extra="forbid")


class Loading(Part):
    """How the model came in."""

    source: str = Field(description="the model reference as given")
    kind: str = Field(description="safetensors, state_dict, torch.export, timm, hub, python or module")
    architecture: str = Field(description="name of the architecture, or the class of the user's module")
    parameters: int = Field(description="number of weights")
    sha256: str | None = Field(description="checksum of the file, if there is one")
    safe: bool = Field(description="true: loaded without executing code from the file; false: the user's own code was run on request")


class Robustness(Part):
    """Accuracy under one attack at one budget."""

    attack: str = Field(description="specification of the evasion")
    eps: float = Field(description="budget in pixel units of [0, 1]")
    accuracy: float = Field(description="share of images still classified correctly, in [0, 1]")
    count: int = Field(description="number of images attacked")


class Flagged(Part):
    """What one detector flagged among the suspect inputs."""

    detector: str
    count: int = Field(description="number flagged")
    of: int = Field(description="number of suspect inputs")
    asked_fpr: float = Field(description="the false-positive rate the user named")
    realised_fpr: float = Field(description="share of held-out clean images flagged at the same threshold")
    realised_interval: tuple[float, float] = Field(description="Clopper-Pearson 95 % interval of realised_fpr")
    threshold: float
    files: list[str] = Field(default_factory=list, description="names of the flagged inputs, most suspicious first")


class Suspects(Part):
    """Which training images look poisoned."""

    screen: str
    count: int = Field(description="number of training images called suspicious")
    of: int
    files: list[str] = Field(default_factory=list, description="names or positions, most suspicious first")


class Repaired(Part):
    """The repaired model beside the original."""

    method: str
    clean_accuracy_before: float
    clean_accuracy_after: float
    robust_before: list[Robustness] = Field(default_factory=list)
    robust_after: list[Robustness] = Field(default_factory=list)
    candidate_asr_before: float | None = Field(default=None, description="share of clean images the reversed trigger sends to the target, before")
    candidate_asr_after: float | None = Field(default=None, description="the same trigger on the repaired model")
    weights: str = Field(description="file name of the repaired weights")


class Evidence(Part):
    """What one inspector saw."""

    inspector: str
    infected: bool
    target: int | None
    p_value: float
    per_class: list[float] = Field(description="suspicion of each class, higher = more suspicious")
    note: str = ""


class Judged(Part):
    """The truth beside the verdict; present only when the judge was told it."""

    target: int | None
    trigger: str
    asr_before: float = Field(description="attack success rate over images not of the target class, before repair")
    asr_after: float
    tpr: float = Field(description="share of triggered images flagged")
    tpr_interval: tuple[float, float] = Field(description="Clopper-Pearson 95 % interval")
    fpr: float = Field(description="share of fresh clean images flagged")
    auroc: float = Field(description="triggered against clean images, target class included")
    robust_accuracy_after: float = Field(description="triggered images given their true class by the repaired model")
    der: float = Field(description="defense effectiveness rate of the repair")


class AuditReport(Part):
    """All that an audit says."""

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    mithridate_version: str
    verdict: str = Field(description="the answer in one sentence")
    loading: Loading
    classes: list[str]
    clean_images: int
    clean_accuracy: float
    clean_accuracy_interval: tuple[float, float]
    infected: bool
    target: int | None = Field(description="class index the backdoor leads to, or null")
    p_value: float
    evidence: list[Evidence]
    robust_accuracy: list[Robustness]
    flagged: Flagged | None = Field(description="null when no suspect inputs were given")
    training: Suspects | None = Field(default=None, description="null when no training images were given")
    repair: Repaired | None = Field(description="null when nothing was repaired")
    truth: Judged | None = Field(default=None, description="only when the truth is known to the judge")
    skipped: list[str] = Field(default_factory=list, description="what the time budget left out, and why")
    config: dict[str, Any] = Field(description="every setting, seeds included")
    versions: dict[str, str]
    seconds: dict[str, float] = Field(description="wall-clock seconds of each step")
