"""One audit from start to end: every question in its order, within the time budget."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mithridate import __version__, judge, methods, metrics
from mithridate.audit import steps
from mithridate.audit.settings import Clock, Settings
from mithridate.audit.words import sentence
from mithridate.card import hardware, versions
from mithridate.data import Samples
from mithridate.guard import Guard
from mithridate.metrics import Rate
from mithridate.nn.modes import predict
from mithridate.report.pictures import Pictures, Sheet
from mithridate.report.schema import AuditReport, Evidence, Judged, Loading, Repaired, Robustness
from mithridate.roles import Progress, Verdict, silent
from mithridate.spec import to_dict
from mithridate.threats.poison import stamp


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject:
    """What is audited: all that a stranger gives and a user has.

    Attributes:
        model: takes float images (n, c, h, w) in [0, 1], gives logits (n, classes).
        clean: images that the user vouches for, with their true labels; a few hundred do.
        suspect: inputs to judge, or None; their labels are not used.
        training: the images the model was trained on, or None.
        loading: how the model came in, or None for a module that was in memory.
    """

    model: nn.Module
    clean: Samples
    suspect: Samples | None = None
    training: Samples | None = None
    loading: Loading | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an audit leaves."""

    report: AuditReport
    pictures: Pictures
    repaired: nn.Module
    guard: Guard | None

    def _repr_html_(self) -> str:
        from mithridate.report.html import summary_html  # jinja is only needed to draw

        return summary_html(self.report)


def audit(
    subject: Subject,
    settings: Settings = Settings(),
    *,
    key: judge.Key | None = None,
    fresh: Samples | None = None,
    progress: Progress = silent,
) -> Outcome:
    """Audit a model as a stranger would.

    Args:
        subject: the model and the user's images.
        settings: what is tried, and how hard.
        key: the answer key, if the judge knows it. It is used after everything else is decided, for the report's last section.
        fresh: labeled clean images that the audit has not seen, on which the judge measures; needed with a key.
        progress: told how far each step is.

    Raises:
        ValueError: images, labels or settings that do not fit the model.
    """
    run = _Audit(subject, settings, progress)
    run.answer()
    if key is not None:
        if fresh is None:
            raise ValueError("fresh must be given with a key, got None")
        run.judge(key, fresh)
    return run.outcome()


class _Audit:
    """The state of one audit: what has been found so far."""

    def __init__(self, subject: Subject, settings: Settings, progress: Progress) -> None:
        self.subject, self.settings, self.progress = subject, settings, progress
        self.model, self.clock = subject.model, Clock(settings.seconds)
        self.parts = steps.split(subject.clean, settings.seed)
        self.evasions = [methods.parse(spec, "evasion") for spec in settings.evasions]
        self.inspectors = [methods.parse(spec, "inspector") for spec in settings.inspectors]
        self.detectors = [methods.parse(spec, "detector") for spec in settings.detectors]
        self.screen, self.repair = methods.parse(settings.screen, "screen"), methods.parse(settings.repair, "repair")
        self.found: dict[str, Any] = {}
        self.drawn: dict[str, Any] = {"clean": Sheet(images=subject.clean.images[:12])}

    def answer(self) -> None:
        """Every question, in the order of the report."""
        self.clock.run("accuracy", self._accuracy)
        self.clock.run("inspection", self._inspection)
        self.clock.run("robustness", self._robustness)
        self.clock.run("guard", self._guard)
        self.clock.run("screening", self._screening)
        self.clock.run("repair", self._repair)

    def _accuracy(self) -> None:
        predicted = predict(self.model, self.subject.clean)
        if predicted.shape[1] < len(self.subject.clean.classes):
            raise ValueError(f"clean images have {len(self.subject.clean.classes)} classes, the model gives {predicted.shape[1]} logits")
        self.classes = [*self.subject.clean.classes, *(str(i) for i in range(len(self.subject.clean.classes), predicted.shape[1]))]
        self.accuracy: Rate = metrics.accuracy(predicted.argmax(1), self.subject.clean.labels.cpu())

    def _inspection(self) -> None:
        said: list[Evidence] = []
        for i, inspector in enumerate(self.inspectors):
            verdict, evidence = steps.inspect(self.model, self.subject.clean, inspector, self.settings.seed, self.progress)
            said.append(evidence)
            if i == 0:
                self.verdict: Verdict = verdict
                self.drawn["candidates"] = steps.candidates(self.parts.held_out, verdict)
            elif "landings" in verdict.evidence:
                self.drawn["landing"] = verdict.evidence["landings"].sum(0)
        self.found["evidence"] = said

    def _robustness(self) -> None:
        self.attacked = self.subject.clean[: self.settings.robust_images]
        if self.clock.allows("robust accuracy", 0.0):
            self.found["robust_accuracy"] = self._robust(self.model)
            if self.evasions:
                self.drawn["attacked"] = steps.attacked(self.model, self.attacked, self.evasions[-1], self.settings.seed)

    def _robust(self, model: nn.Module) -> list[Robustness]:
        results = []
        for i, evasion in enumerate(self.evasions):
            results.append(steps.robustness(model, self.attacked, evasion, self.settings.seed))
            self.progress("robust accuracy", i + 1, len(self.evasions))
        return results

    def _guard(self) -> None:
        self.guard: Guard | None = None
        flags = None
        try:
            self.guard = Guard.fit(
                self.model, self.detectors, self.parts.known, fpr=self.settings.fpr, seed=self.settings.seed, progress=self.progress
            )
        except ValueError as error:
            if self.subject.suspect is not None:
                raise
            self.clock.skipped.append(f"guard: {error}")
        if self.guard is not None and self.subject.suspect is not None:
            self.found["flagged"], self.drawn["scores"], self.drawn["flagged"], flags = steps.flag(
                self.guard, self.parts, self.subject.suspect
            )
        self.drawn["view"] = steps.view(self.model, self.parts.held_out, self.subject.suspect, flags)

    def _screening(self) -> None:
        if self.subject.training is not None and self.clock.allows("screening", 0.0):
            self.found["training"], self.drawn["training"] = steps.screened(
                self.model, self.subject.training, self.screen, self.settings.seed, self.progress
            )

    def _repair(self) -> None:
        self.repaired = self.model
        if not self.clock.allows("repair", 0.0):
            return
        self.repaired = self.repair.repair(
            self.model, self.parts.known, verdict=self.verdict, seed=self.settings.seed, progress=self.progress
        )
        self.attacked = self.parts.held_out[: self.settings.robust_images]
        again = self.clock.steps.get("inspection", 0.0)
        after = None
        if self.clock.allows("inspection of the repaired model", again):
            after = steps.inspect(self.repaired, self.subject.clean, self.inspectors[0], self.settings.seed, self.progress)[1]
        self.found["repair"] = Repaired(
            method=self.settings.repair,
            clean_accuracy_before=judge.accuracy(self.model, self.parts.held_out).value,
            clean_accuracy_after=judge.accuracy(self.repaired, self.parts.held_out).value,
            robust_before=self._robust(self.model),
            robust_after=self._robust(self.repaired),
            candidate_asr_before=steps.candidate_success(self.model, self.parts.held_out, self.verdict),
            candidate_asr_after=steps.candidate_success(self.repaired, self.parts.held_out, self.verdict),
            inspected_after=after,
            weights="repaired.safetensors",
        )

    def judge(self, key: judge.Key, fresh: Samples) -> None:
        """The truth beside the verdict, measured on fresh images; nothing decided before is changed by it."""
        stamped = stamp(key.trigger, fresh)
        before, _ = judge.attack_success(self.model, fresh, key)
        after, robust = judge.attack_success(self.repaired, fresh, key)
        accuracies = [judge.accuracy(m, fresh).value for m in (self.model, self.repaired)]
        detection: dict[str, Any] = {"tpr": None, "tpr_interval": None, "fpr": None, "auroc": None}
        if self.guard is not None:
            detection = _detection(self.guard, fresh, stamped[stamped.labels != key.target])
        self.found["truth"] = Judged(
            target=key.target,
            trigger=key.spec,
            asr_before=before.value,
            asr_after=after.value,
            robust_accuracy_after=robust.value,
            clean_accuracy_before=accuracies[0],
            clean_accuracy_after=accuracies[1],
            der=metrics.defense_effectiveness(accuracies[0], before.value, accuracies[1], after.value),
            **detection,
        )
        self.drawn["truth"] = Sheet(images=stamped.images[:12])

    def outcome(self) -> Outcome:
        """The report and what goes with it."""
        report = AuditReport(
            mithridate_version=__version__,
            verdict=sentence(self.verdict, self.classes, self.found.get("flagged")),
            loading=self.subject.loading or _in_memory(self.model),
            classes=self.classes,
            clean_images=len(self.subject.clean),
            clean_accuracy=self.accuracy.value,
            clean_accuracy_interval=self.accuracy.interval,
            infected=self.verdict.infected,
            target=self.verdict.target,
            p_value=self.verdict.p_value,
            evidence=self.found["evidence"],
            robust_accuracy=self.found.get("robust_accuracy", []),
            flagged=self.found.get("flagged"),
            training=self.found.get("training"),
            repair=self.found.get("repair"),
            truth=self.found.get("truth"),
            skipped=self.clock.skipped,
            config=self._config(),
            versions=versions() | {"hardware": hardware()},
            seconds={step: round(seconds, 3) for step, seconds in self.clock.steps.items()},
        )
        return Outcome(report, Pictures(**self.drawn), self.repaired, self.guard)

    def _config(self) -> dict[str, Any]:
        chosen = {"inspectors": self.inspectors, "evasions": self.evasions, "detectors": self.detectors}
        tables: dict[str, Any] = {role: [to_dict(method) for method in found] for role, found in chosen.items()}
        tables |= {"screen": to_dict(self.screen), "repair": to_dict(self.repair)}
        rest = {k: v for k, v in dataclasses.asdict(self.settings).items() if k not in tables}
        return tables | rest | {"threads": torch.get_num_threads()}


def _detection(guard: Guard, clean: Samples, malicious: Samples) -> dict[str, Any]:
    benign, caught = guard.answer(clean), guard.answer(malicious)
    hits = Rate(int(caught.flagged.sum()), len(malicious))
    scores = torch.cat([benign.scores[guard.specs[0]], caught.scores[guard.specs[0]]])
    truth = torch.arange(len(scores)) >= len(clean)
    false = Rate(int(benign.flagged.sum()), len(clean))
    return {"tpr": hits.value, "tpr_interval": hits.interval, "fpr": false.value, "auroc": metrics.auroc(scores, truth)}


def _in_memory(model: nn.Module) -> Loading:
    return Loading(
        source="a module in memory",
        kind="module",
        architecture=type(model).__name__,
        parameters=sum(p.numel() for p in model.parameters()),
        sha256=None,
        safe=True,
    )
