"""One audit from start to end: every question in its order, within the time budget."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import torch
from torch import nn

from mithridate import __version__, judge, methods, metrics
from mithridate.audit import budget, steps
from mithridate.audit.ends import Outcome, Subject, checked
from mithridate.audit.settings import Clock, Settings
from mithridate.audit.words import sentence
from mithridate.card import hardware, versions
from mithridate.data import Samples
from mithridate.errors import NotFinite
from mithridate.guard import Guard
from mithridate.metrics import Rate
from mithridate.nn.modes import predict
from mithridate.report.pictures import Pictures, Sheet
from mithridate.report.schema import AuditReport, Evidence, Judged, Repaired, Robustness
from mithridate.roles import Inspector, Progress, Repair, Verdict, silent
from mithridate.spec import to_dict, to_spec
from mithridate.threats.poison import stamp

TRIAL = 32  # images on which a time budget measures what a step costs


def audit(
    subject: Subject,
    settings: Settings = Settings(),  # noqa: B008 - it is frozen
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
        subject, notes = checked(subject)
        self.subject, self.settings, self.progress = subject, settings, progress
        self.model, self.clock = subject.model, Clock(settings.seconds)
        self.clock.skipped += notes
        self.parts = steps.split(subject.clean, settings.seed)
        needed = math.ceil(len(settings.detectors) / settings.fpr) - 1
        if subject.suspect is not None and len(self.parts.known) < needed:  # the guard would say so too, but after everything else
            raise ValueError(f"clean must hold at least {math.ceil(needed / 0.75)} images for fpr {settings.fpr}, got {len(subject.clean)}")
        self.evasions = [methods.parse(spec, "evasion") for spec in settings.evasions]
        self.inspectors = [methods.parse(spec, "inspector") for spec in settings.inspectors]
        self.detectors = [methods.parse(spec, "detector") for spec in settings.detectors]
        self.screen, self.repair = methods.parse(settings.screen, "screen"), methods.parse(settings.repair, "repair")
        self.pace = 0.0  # seconds that all evasions take for an image, where a budget made it measured
        self.found: dict[str, Any] = {}
        apart = math.ceil(len(subject.clean) / 12)  # a dozen, of all classes also where they come one after another
        self.drawn: dict[str, Any] = {"clean": Sheet(images=subject.clean.images[::apart])}

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
        if self.accuracy.interval[0] <= 1 / len(self.classes):
            self.clock.skipped.append(
                "clean accuracy is no better than chance, so no verdict means much: check labels, image size and range"
            )

    def _inspection(self) -> None:
        said: list[Evidence] = []
        for i, share in enumerate((0.4, *[0.1] * (len(self.inspectors) - 1))):
            begun = time.perf_counter()
            answer = budget.within(self.clock, share * self.clock.budget, self.inspectors[i], self._ask, self.progress, must=i == 0)
            if answer is None:
                continue
            self.inspectors[i], (verdict, evidence) = answer
            said.append(evidence)
            if i == 0:
                self.verdict: Verdict = verdict
                self.again = time.perf_counter() - begun
                self.drawn["candidates"] = steps.candidates(self.parts.held_out, verdict)
            elif "landings" in verdict.evidence:
                self.drawn["landing"] = verdict.evidence["landings"].sum(0)
        self.found["evidence"] = said

    def _ask(self, inspector: Inspector, progress: Progress) -> tuple[Verdict, Evidence]:
        return steps.inspect(self.model, self.subject.clean, inspector, self.settings.seed, progress)

    def _robustness(self) -> None:
        if self.clock.limited:
            begun = time.perf_counter()
            self.attacked = self.subject.clean[:TRIAL]
            self._robust(self.model)
            self.pace = (time.perf_counter() - begun) / len(self.attacked)
        if self.clock.allows("robust accuracy", self.pace * TRIAL):
            self.attacked = self._affordable(self.subject.clean, 0.1 * self.clock.budget)
            self.found["robust_accuracy"] = self._robust(self.model)
            if self.evasions:
                self.drawn["attacked"] = steps.attacked(self.model, self.attacked, self.evasions[-1], self.settings.seed)

    def _affordable(self, samples: Samples, seconds: float) -> Samples:
        """As many images as the evasions can attack in that time, at least a few, at most as many as the settings ask for."""
        asked = min(self.settings.robust_images, len(samples))
        fitting = min(asked, max(TRIAL, int(seconds / self.pace))) if self.pace else asked
        if fitting < asked:
            self.clock.note(f"robust accuracy: {fitting} images instead of {asked}")
        return samples[:fitting]

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
        training = self.subject.training
        if training is None:
            return
        each = self.clock.steps["accuracy"] / len(self.subject.clean)  # a look at every image is what a screen needs at least
        if self.clock.allows("screening of the training images", each * len(training) if self.clock.limited else 0.0):
            self.found["training"], self.drawn["training"] = steps.screened(
                self.model, training, self.screen, self.settings.seed, self.progress
            )

    def _repair(self) -> None:
        self.repaired = self.model
        try:
            answer = budget.within(self.clock, 0.5 * self.clock.left, self.repair, self._mend, self.progress)
        except NotFinite as error:  # one question that cannot be answered must not cost the user all the others
            self.clock.skipped.append(f"repair: {error}")
            return
        if answer is None:
            return
        self.repair, self.repaired = answer
        after = None
        if self.clock.allows("inspection of the repaired model", self.again if self.clock.limited else 0.0):
            after = steps.inspect(self.repaired, self.subject.clean, self.inspectors[0], self.settings.seed, self.progress)[1]
        self.attacked = self._affordable(self.parts.held_out, 0.5 * self.clock.left)
        self.found["repair"] = Repaired(
            method=to_spec(self.repair),
            clean_accuracy_before=judge.accuracy(self.model, self.parts.held_out).value,
            clean_accuracy_after=judge.accuracy(self.repaired, self.parts.held_out).value,
            robust_before=self._robust(self.model),
            robust_after=self._robust(self.repaired),
            candidate_asr_before=steps.candidate_success(self.model, self.parts.held_out, self.verdict),
            candidate_asr_after=steps.candidate_success(self.repaired, self.parts.held_out, self.verdict),
            inspected_after=after,
            weights="repaired.safetensors",
        )

    def _mend(self, repair: Repair, progress: Progress) -> nn.Module:
        return repair.repair(self.model, self.parts.known, verdict=self.verdict, seed=self.settings.seed, progress=progress)

    def judge(self, key: judge.Key, fresh: Samples) -> None:
        """The truth beside the verdict, measured on fresh images; nothing decided before is changed by it."""
        stamped = stamp(key.trigger, fresh)
        before, _ = judge.attack_success(self.model, fresh, key)
        after, robust = judge.attack_success(self.repaired, fresh, key)
        accuracies = [judge.accuracy(m, fresh).value for m in (self.model, self.repaired)]
        detection: dict[str, Any] = {"tpr": None, "tpr_interval": None, "fpr": None, "auroc": None}
        if self.guard is not None:
            detection = steps.detection(self.guard, fresh, stamped[key.counts(stamped.labels)])
        self.found["truth"] = Judged(
            target=key.target if isinstance(key.target, int) else None,
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
            loading=self.subject.loading or steps.in_memory(self.model),
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
