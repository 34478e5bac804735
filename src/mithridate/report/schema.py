"""The versioned schema of `report.json`: what an audit says, in words and numbers that other programs can read."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Final = "1.0"


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

    detector: str = Field(description="specification of the detector")
    count: int = Field(description="number flagged")
    of: int = Field(description="number of suspect inputs")
    asked_fpr: float = Field(description="the false-positive rate the user named")
    realised_fpr: float = Field(description="share of held-out clean images flagged at the same threshold")
    realised_interval: tuple[float, float] = Field(description="Clopper-Pearson 95 % interval of realised_fpr")
    malicious_found: bool = Field(description="more are flagged than the asked rate explains (binomial tail at most 1 %)")
    threshold: float = Field(description="scores above it are flagged")
    files: list[str] = Field(default_factory=list, description="names of the flagged inputs, most suspicious first")


class Suspects(Part):
    """Which training images look poisoned."""

    screen: str = Field(description="specification of the screen")
    count: int = Field(description="number of training images called suspicious")
    of: int = Field(description="number of training images")
    files: list[str] = Field(default_factory=list, description="names or positions, most suspicious first")


class Evidence(Part):
    """What one inspector saw."""

    inspector: str = Field(description="specification of the inspector")
    infected: bool = Field(description="what this inspector decides")
    target: int | None = Field(description="class index it points at, or null")
    p_value: float = Field(description="chance that a clean model looks at least this suspicious, in [0, 1]")
    per_class: list[float] = Field(description="suspicion of each class, higher = more suspicious")
    note: str = Field(default="", description="one sentence that says what was seen")


class Repaired(Part):
    """The repaired model beside the original."""

    method: str = Field(description="specification of the repair")
    clean_accuracy_before: float = Field(description="accuracy of the model as given, on clean images, in [0, 1]")
    clean_accuracy_after: float = Field(description="accuracy of the repaired model on the same images")
    robust_before: list[Robustness] = Field(default_factory=list, description="the model as given, under each attack")
    robust_after: list[Robustness] = Field(default_factory=list, description="the repaired model, under the same attacks")
    candidate_asr_before: float | None = Field(
        default=None, description="share of clean images that the reversed trigger sends to the target"
    )
    candidate_asr_after: float | None = Field(default=None, description="the same trigger on the repaired model")
    inspected_after: Evidence | None = Field(default=None, description="what the first inspector says of the repaired model")
    weights: str = Field(description="file name of the repaired weights")


class Judged(Part):
    """The truth beside the verdict; present only when the judge was told it."""

    target: int | None = Field(description="class index the attacker chose, or null for all-to-all")
    trigger: str = Field(description="specification of the true trigger")
    asr_before: float = Field(description="attack success rate over images not of the target class, before repair")
    asr_after: float = Field(description="the same after repair")
    tpr: float | None = Field(description="share of triggered images, not of the target class, that are flagged; null without a guard")
    tpr_interval: tuple[float, float] | None = Field(description="Clopper-Pearson 95 % interval")
    fpr: float | None = Field(description="share of fresh clean images flagged")
    auroc: float | None = Field(description="triggered against clean images, target class included among the clean")
    clean_accuracy_before: float = Field(description="on fresh images")
    clean_accuracy_after: float = Field(description="on fresh images")
    robust_accuracy_after: float = Field(description="triggered images given their true class by the repaired model")
    der: float = Field(description="defense effectiveness rate of the repair")


class AuditReport(Part):
    """All that an audit says."""

    schema_version: Literal["1.0"] = Field(default=SCHEMA_VERSION, description="version of this schema")
    mithridate_version: str = Field(description="version of the package that wrote it")
    verdict: str = Field(description="the answer in one sentence")
    loading: Loading = Field(description="how the model came in")
    classes: list[str] = Field(description="class names, in the order of the logits")
    clean_images: int = Field(description="number of clean images given")
    clean_accuracy: float = Field(description="share of clean images classified correctly, in [0, 1]")
    clean_accuracy_interval: tuple[float, float] = Field(description="Clopper-Pearson 95 % interval of clean_accuracy")
    infected: bool = Field(description="the decision: does the model carry a backdoor")
    target: int | None = Field(description="class index the backdoor leads to, or null")
    p_value: float = Field(description="chance that a clean model looks at least this suspicious, in [0, 1]")
    evidence: list[Evidence] = Field(description="what each inspector saw; the first one decides")
    robust_accuracy: list[Robustness] = Field(description="accuracy under each attack and budget asked for")
    flagged: Flagged | None = Field(description="null when no suspect inputs were given")
    training: Suspects | None = Field(default=None, description="null when no training images were given")
    repair: Repaired | None = Field(description="null when nothing was repaired")
    truth: Judged | None = Field(default=None, description="only when the truth is known to the judge")
    skipped: list[str] = Field(default_factory=list, description="what was shortened or left out and why, and what a reader should know")
    config: dict[str, Any] = Field(description="every setting, seeds included")
    versions: dict[str, str] = Field(description="versions of Python and of the packages the numbers depend on")
    seconds: dict[str, float] = Field(description="wall-clock seconds of each step")
