"""Judging a detector: one threshold, set on clean images only, then malicious inputs that work and clean ones of every class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mithridate import metrics
from mithridate.bench.judgments.case import Case, Finding, share
from mithridate.calibrate import Threshold, threshold
from mithridate.crossfit import score_all
from mithridate.data import Samples, to_float
from mithridate.nn.guarded import Guarded
from mithridate.nn.modes import device_of, predict
from mithridate.roles import Evasion
from mithridate.spec import entry_of
from mithridate.threats.attack import attack
from mithridate.threats.dose import wanted
from mithridate.threats.poison import stamp

POINTS = 100  # of the ROC curve on the card
_latest: dict[Any, tuple[Samples, Tensor]] = {}  # examples made last: a grid judges all detectors on them, one after the other
LOOSE = 0.05  # a second false-positive rate, whose threshold fewer calibration images support as well


def detection(case: Case) -> Finding:
    """A detector against the victim's own trigger, an evasion of the model, or nothing (false alarms only).

    Malicious inputs that do not reach their goal harm nobody: `tpr` and `auroc` are over those that do, `tpr_all` over all.
    `residual_asr` counts those that do and are not refused, among all. The `_5` figures are at an asked rate of 5 %.
    """
    found, model, device = Finding(), case.victim.model, device_of(case.victim.model)
    with found.timed(case):
        scorer = case.defense.fit(model, case.parts.fit, seed=case.seed, progress=case.progress)
    known, clean = score_all(scorer, case.parts.calibration, device), score_all(scorer, case.parts.test, device)
    cut, loose = threshold(known, case.protocol.fpr), threshold(known, LOOSE)
    found.metrics = {"fpr": share(cut.flag(clean)), "fpr_5": share(loose.flag(clean))}
    if case.evasion is None and case.victim.key is None:
        return found
    made, works = _evaded(case, scorer, cut) if case.evasion is not None else _stamped(case)
    scores = score_all(scorer, made, device)
    flagged = cut.flag(scores)
    found.metrics |= {"successful": share(works), "tpr_all": share(flagged), "residual_asr": share(works & ~flagged)}
    if bool(works.any()):
        both, truth = torch.cat([clean, scores[works]]), torch.arange(len(clean) + int(works.sum())) >= len(clean)
        found.metrics |= {"tpr": share(flagged[works]), "tpr_5": share(loose.flag(scores[works])), "auroc": metrics.auroc(both, truth)}
        found.curves["roc"] = _roc(clean, scores[works])
    return found


def _stamped(case: Case) -> tuple[Samples, Tensor]:
    """Every test image that the attack is about, stamped, and which of them get the class it wants."""
    key, test = case.victim.key, case.parts.test
    if key is None:
        raise ValueError("victim must have a backdoor, got a clean one")
    made = stamp(key.trigger, test[key.counts(test.labels)])
    return made, predict(case.victim.model, made).argmax(1) == wanted(key.target, made.labels.cpu())


def _evaded(case: Case, scorer: Any, cut: Threshold) -> tuple[Samples, Tensor]:
    """Adversarial examples of test images that the model classifies rightly, and which of them fool it."""
    if case.evasion is None:
        raise ValueError("evasion must be given, got None")
    if "adaptive" in entry_of(case.evasion).scope:
        model = case.victim.model
        return _perturbed(case, case.evasion, Guarded(model, [(scorer, cut)], _floats(case.parts.fit, model)))
    about = (str(case.victim.folder), case.config["model"], case.config["evasion"], case.seed, case.protocol)
    if about not in _latest:
        _latest.clear()
        _latest[about] = _perturbed(case, case.evasion, case.victim.model)
    return _latest[about]


def _perturbed(case: Case, evasion: Evasion, against: nn.Module) -> tuple[Samples, Tensor]:
    test, model = case.parts.test, case.victim.model
    right = test[predict(model, test).argmax(1) == test.labels.cpu()][: case.protocol.robust_images]
    device = device_of(model)
    made = [attack(evasion, against, x.to(device), y.to(device), seed=case.seed) for x, y in right.batches(250)]
    images, fooled = torch.cat([part.images for part in made]), torch.cat([part.fooled for part in made])
    return Samples(images, right.labels, right.classes), fooled.cpu()


def _floats(samples: Samples, model: Any) -> Tensor:
    return to_float(samples.images).to(device_of(model))


def _roc(clean: Tensor, malicious: Tensor) -> list[list[float]]:
    """(false-positive rate, true-positive rate) at thresholds spread evenly over the clean scores' ranks."""
    cuts = clean.sort(descending=True).values[torch.linspace(0, len(clean) - 1, POINTS).long()]
    points = [[float((clean > cut).float().mean()), float((malicious > cut).float().mean())] for cut in cuts]
    return [*points, [1.0, 1.0]]
