"""Judging what a defense hands back: a model trained on poisoned data, or a repaired one, beside the victim itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mithridate import judge, loops, metrics
from mithridate.bench.judgments.case import Case, Finding, interval, robust, share
from mithridate.bench.victims import dataset_of, training_set
from mithridate.data import Samples
from mithridate.infect import ALIVE_ASR, ALIVE_COST
from mithridate.nn.models import initialize
from mithridate.reporting import Learned, Reporting
from mithridate.threats.dose import wanted
from mithridate.threats.poison import stamp

RETRAIN = loops.Recipe(epochs=5, lr=0.01, schedule="constant", pad=0)  # what an attacker who fine-tunes a repaired model can afford


def undefended(case: Case) -> Finding:
    """The victim as it is: what every defense is compared with."""
    found = Finding()
    found.metrics = _measured(case, case.victim.model)
    found.metrics["accuracy_cost"] = _cost(case)
    if case.victim.key is not None:  # what the trigger does to a model that never saw it
        found.metrics["asr_twin"] = interval(judge.attack_success(case.twin.model, case.parts.test, case.victim.key)[0])
    return found


def training(case: Case) -> Finding:
    """A trainer on the poisoned data, with no clean image, and, if it says what it saw, how right that is."""
    found, (data, truth) = Finding(), training_set(case.victim, case.config)
    shape = {"classes": len(data.classes), "channels": data.images.shape[1], "size": data.images.shape[-1]}
    model = initialize(case.config["model"], case.seed, **shape).to(data.images.device)
    checkpoint = case.out / "checkpoint.safetensors"
    with found.timed(case):
        learn = case.defense.learn if isinstance(case.defense, Reporting) else case.defense.train
        given = learn(model, data, seed=case.seed, progress=case.progress, checkpoint=checkpoint)
    found.cost.clear()  # counted were the victim's passes, and it trains a model of its own
    for left in case.out.glob(f"{checkpoint.stem}*{checkpoint.suffix}"):  # of each stage
        left.unlink()
    if not isinstance(given, Learned):
        return _compared(case, given, found)
    _compared(case, given.model, found)
    poisoned = torch.zeros(len(data), dtype=torch.bool) if truth is None else truth.poisoned.cpu()
    found.metrics |= _isolated(given.suspected, poisoned) | {"said": "; ".join(given.notes)}
    for name, rows in (("loss_poisoned", poisoned), ("loss_others", ~poisoned)):
        found.curves[name] = [float(epoch[rows].mean()) for epoch in given.losses] if bool(rows.any()) else []
    return found


def _isolated(suspected: Tensor, poisoned: Tensor) -> dict[str, Any]:
    """The share of samples (n,) that a trainer held for poisoned; its precision, and its recall of the poisoned ones (n,)."""
    found: dict[str, Any] = {"isolated": share(suspected)}
    if bool(suspected.any()):
        found["isolated_precision"] = share(poisoned[suspected])
    if bool(poisoned.any()):
        found["isolated_recall"] = share(suspected[poisoned])
    return found


def repairing(case: Case) -> Finding:
    """A repair with the clean images, and what a few poisoned images bring back of the backdoor afterwards."""
    found = Finding()
    with found.timed(case):
        repaired = case.defense.repair(case.victim.model, case.parts.fit, verdict=case.verdict, seed=case.seed, progress=case.progress)
    _compared(case, repaired, found)
    if case.victim.key is not None and case.protocol.retrain:
        for name, model in (("asr_reactivated", repaired), ("asr_reactivated_twin", case.twin.model)):
            found.metrics[name] = _reactivated(case, model)
    return found


def dead(case: Case) -> str:
    """Why an attack is dead, so that no defense can win against it; empty where it is alive."""
    if case.victim.key is None:
        return ""
    asr, cost = case.victim.card.metrics["asr"][0], _cost(case)
    reasons = [f"success rate {asr:.1%} is under {ALIVE_ASR:.0%}"] if asr < ALIVE_ASR else []
    if cost > ALIVE_COST:
        reasons.append(f"accuracy is {100 * cost:.1f} points under the clean twin's")
    return ", ".join(reasons)


def _cost(case: Case) -> float:
    """Accuracy under the clean twin's, as measured when they were made."""
    twin, victim = (float(each.card.metrics["clean_accuracy"][0]) for each in (case.twin, case.victim))
    return twin - victim


def _compared(case: Case, model: nn.Module, found: Finding) -> Finding:
    """The model that a defense gave, beside the victim before."""
    before = {} if case.before is None else case.before.metrics
    found.metrics = _measured(case, model)
    found.metrics |= {f"{name}_before": before[name] for name in found.metrics if name in before}
    if "asr_before" in found.metrics:
        values = [found.metrics[name][0] for name in ("clean_accuracy_before", "asr_before", "clean_accuracy", "asr")]
        found.metrics["der"] = metrics.defense_effectiveness(*values)
    return found


def _measured(case: Case, model: nn.Module) -> dict[str, Any]:
    """Clean accuracy, the same without the target's images, ASR, accuracy on stamped images and under attack, of the judge's images."""
    found: dict[str, Any] = {"clean_accuracy": interval(judge.accuracy(model, case.parts.test))}
    if case.victim.key is not None:
        ours = case.parts.test[case.victim.key.counts(case.parts.test.labels)]
        asr, recovered = judge.attack_success(model, ours, case.victim.key)
        found |= {"clean_accuracy_attacked": interval(judge.accuracy(model, ours))}
        found |= {"asr": interval(asr), "recovered_accuracy": interval(recovered)}
    return found | robust(case, model, case.config["robustness"])


def _reactivated(case: Case, model: nn.Module) -> list[float]:
    """ASR after fine-tuning on clean images among which a few are poisoned: is the backdoor gone, or only asleep?

    Source: Min et al., NeurIPS 2024, arXiv 2410.09838 (retuning attack); the clean twin, fine-tuned alike, says what the poisoned
    images teach by themselves.
    """
    key = case.victim.key
    if key is None:
        raise ValueError("victim must have a backdoor to bring back, got a clean one")
    training_images = dataset_of(case.config).train.split(len(case.parts.fit), seed=case.seed + 1)[0]
    recipe = loops.train(model, _mixed(training_images, key, case.protocol.retrain), RETRAIN, seed=case.seed)
    return interval(judge.attack_success(recipe, case.parts.test, key)[0])


def _mixed(samples: Samples, key: judge.Key, share: float) -> Samples:
    """Samples of which the first few that the attack is about are stamped and get the label it wants."""
    rows = key.counts(samples.labels).nonzero().flatten()[: max(1, round(share * len(samples)))]
    images, labels = samples.images.clone(), samples.labels.clone()
    images[rows] = stamp(key.trigger, samples[rows]).images.to(images)
    labels[rows] = wanted(key.target, labels[rows]).to(torch.int64)
    return Samples(images, labels, samples.classes)
