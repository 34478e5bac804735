"""The questions of an audit, one function each: numbers for the report, and pictures beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mithridate import judge, metrics
from mithridate.analysis.outliers_1d import suspicious
from mithridate.data import Samples, to_float
from mithridate.guard import Guard
from mithridate.metrics import Rate
from mithridate.nn.modes import device_of, predict
from mithridate.nn.taps import last_hidden, trace_all
from mithridate.report.pictures import Attacked, Candidates, Scores, Sheet, View
from mithridate.report.schema import Evidence, Flagged, Loading, Robustness, Suspects
from mithridate.roles import Evasion, Inspector, Progress, Screen, Verdict
from mithridate.spec import to_spec

LOOKED_AT = 64  # images attacked to find a few that fool
SHOWN = 64  # pictures kept for a contact sheet


@dataclass(frozen=True, eq=False)
class Parts:
    """Disjoint parts of the clean images.

    Attributes:
        known: what detectors and repairs learn from, and what sets the thresholds.
        held_out: what accuracies and realised rates are measured on.
    """

    known: Samples
    held_out: Samples


def split(clean: Samples, seed: int) -> Parts:
    """Three quarters to learn from, one quarter to measure on.

    Raises:
        ValueError: fewer than eight clean images.
    """
    if len(clean) < 8:
        raise ValueError(f"clean must hold at least 8 images, got {len(clean)}")
    return Parts(*clean.split(len(clean) - len(clean) // 4, seed=seed))


def inspect(model: nn.Module, clean: Samples, inspector: Inspector, seed: int, progress: Progress) -> tuple[Verdict, Evidence]:
    """What one inspector says of the model."""
    verdict = inspector.inspect(model, clean, seed=seed, progress=progress)
    said = Evidence(
        inspector=to_spec(inspector),
        infected=verdict.infected,
        target=verdict.target,
        p_value=verdict.p_value,
        per_class=[float(value) for value in verdict.per_class],
        note=verdict.note,
    )
    return verdict, said


def robustness(model: nn.Module, samples: Samples, evasion: Evasion, seed: int) -> Robustness:
    """Accuracy under one attack."""
    rate = judge.robust_accuracy(model, samples, evasion, seed=seed)
    eps = float(getattr(evasion, "eps", float("nan")))
    return Robustness(attack=to_spec(evasion), eps=eps, accuracy=rate.value, count=rate.of)


def attacked(model: nn.Module, samples: Samples, evasion: Evasion, seed: int) -> Attacked:
    """A few adversarial examples to look at, those that fool the model first."""
    few = samples[:LOOKED_AT]
    clean, labels = to_float(few.images).to(device_of(model)), few.labels.to(device_of(model))
    perturbed = evasion.perturb(model, clean, labels, seed=seed)
    said = [predict(model, images).argmax(1) for images in (clean, perturbed)]
    shown = (said[0] == said[1]).int().argsort(stable=True)[:6]
    before, after = (class_names(few, predicted[shown]) for predicted in said)
    return Attacked(clean=clean.cpu()[shown], perturbed=perturbed.cpu()[shown], before=before, after=after)


def flag(fitted: Guard, parts: Parts, suspect: Samples) -> tuple[Flagged, Scores, Sheet, Tensor]:
    """Which suspect inputs are malicious; the flags (n,) come last."""
    clean, answer = fitted.answer(parts.held_out), fitted.answer(suspect)
    realised = Rate(int(clean.flagged.sum()), len(clean.flagged))
    first = fitted.specs[0]
    cut = float(fitted.threshold(first).cut)
    order = answer.p_values.argsort(stable=True)
    order = order[answer.flagged[order]]
    ranked = order[answer.scores[first][order].argsort(descending=True)]
    said = Flagged(
        detector=" + ".join(fitted.specs),
        count=len(ranked),
        of=len(suspect),
        asked_fpr=fitted.fpr,
        realised_fpr=realised.value,
        realised_interval=realised.interval,
        malicious_found=metrics.binomial_tail(len(ranked), len(suspect), fitted.fpr) <= 0.01,
        threshold=cut,
        files=names(suspect, ranked),
    )
    shown = ranked[:SHOWN]
    sheet = Sheet(
        images=suspect.images[shown],
        names=tuple(names(suspect, shown)),
        scores=answer.scores[first][shown],
        predicted=class_names(suspect, answer.predicted[shown]),
    )
    return said, Scores(clean=clean.scores[first], suspect=answer.scores[first], threshold=cut), sheet, answer.flagged


def screened(model: nn.Module, training: Samples, screen: Screen, seed: int, progress: Progress) -> tuple[Suspects, Sheet]:
    """Which training images look poisoned."""
    scores = screen.screen(model, training, seed=seed, progress=progress)
    found = suspicious(scores, training.labels.cpu()).nonzero().flatten()
    ranked = found[scores[found].argsort(descending=True)]
    said = Suspects(screen=to_spec(screen), count=len(ranked), of=len(training), files=names(training, ranked))
    shown = ranked[:SHOWN]
    return said, Sheet(images=training.images[shown], names=tuple(names(training, shown)), scores=scores[shown])


def detection(guard: Guard, clean: Samples, malicious: Samples) -> dict[str, Any]:
    """How well the guard tells clean images from malicious ones: rates and AUROC for the judge's section."""
    benign, caught = guard.answer(clean), guard.answer(malicious)
    hits = Rate(int(caught.flagged.sum()), len(malicious))
    scores = torch.cat([benign.scores[guard.specs[0]], caught.scores[guard.specs[0]]])
    truth = torch.arange(len(scores)) >= len(clean)
    false = Rate(int(benign.flagged.sum()), len(clean))
    return {"tpr": hits.value, "tpr_interval": hits.interval, "fpr": false.value, "auroc": metrics.auroc(scores, truth)}


def candidates(clean: Samples, verdict: Verdict) -> Candidates | None:
    """The reversed triggers, if the inspector makes such things."""
    if "mask" not in verdict.evidence:
        return None
    mask, pattern = verdict.evidence["mask"], verdict.evidence["pattern"]
    stamped = None
    if verdict.target is not None:
        stamped = stamp(to_float(clean[:6].images), mask[verdict.target], pattern[verdict.target])
    return Candidates(masks=mask, patterns=pattern, stamped=stamped)


def candidate_success(model: nn.Module, clean: Samples, verdict: Verdict) -> float | None:
    """Share of clean images of other classes that the reversed trigger sends to its target."""
    if verdict.target is None or "mask" not in verdict.evidence:
        return None
    mask, pattern = verdict.evidence["mask"][verdict.target], verdict.evidence["pattern"][verdict.target]
    stamped = stamp(to_float(clean.images), mask, pattern)
    return metrics.attack_success_rate(predict(model, stamped).argmax(1), clean.labels.cpu(), verdict.target).value


def stamp(images: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    """(1 - mask) images + mask pattern."""
    return torch.lerp(images, pattern.expand_as(images), mask.expand_as(images))


def view(model: nn.Module, clean: Samples, suspect: Samples | None, flagged: Tensor | None) -> View:
    """The last hidden layer in two dimensions: clean images, suspects that passed, suspects that were flagged."""
    layer = last_hidden(model, clean.images[:1])
    features = trace_all(model, clean, (layer,)).activations[layer]
    groups = torch.zeros(len(clean), dtype=torch.int64)
    group_names: tuple[str, ...] = ("clean",)
    if suspect is not None and flagged is not None:
        features = torch.cat([features, trace_all(model, suspect, (layer,)).activations[layer]])
        groups = torch.cat([groups, 1 + flagged.long()])
        group_names = ("clean", "suspect, not flagged", "suspect, flagged")
    centered = features - features.mean(0)
    directions = torch.linalg.svd(centered, full_matrices=False).Vh[:2]
    points = centered @ directions.T
    return View(points=points, groups=groups, names=group_names, highlight=2 if len(group_names) > 1 else None)


def names(samples: Samples, chosen: Tensor) -> list[str]:
    """File names of the chosen samples, or their positions."""
    return [samples.names[i] if samples.names else str(i) for i in chosen.tolist()]


def class_names(samples: Samples, predicted: Tensor) -> tuple[str, ...]:
    """Names of predicted classes (n,); a model may know more classes than the samples name."""
    return tuple(samples.classes[i] if i < len(samples.classes) else str(i) for i in predicted.tolist())


def in_memory(model: nn.Module) -> Loading:
    """How a module came in that was never a file."""
    return Loading(
        source="a module in memory",
        kind="module",
        architecture=type(model).__name__,
        parameters=sum(p.numel() for p in model.parameters()),
        sha256=None,
        safe=True,
    )
