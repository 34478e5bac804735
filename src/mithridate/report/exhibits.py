"""What an attack does to a few images: to those sent at test time, to those put into training, and to those that cover it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from mithridate.checks import check_number
from mithridate.data import Samples, to_float, to_uint8
from mithridate.datasets.wanted import take
from mithridate.nn.modes import device_of, predict
from mithridate.report.contact import Part
from mithridate.report.pictures import Attacked
from mithridate.roles import Cover, Evasion, Goal, Trigger
from mithridate.threats.attack import attack
from mithridate.threats.dose import Dose, wanted
from mithridate.threats.poison import poison, stamp


def sent(
    trigger: Trigger, samples: Samples, dose: Dose, *, count: int = 8, seed: int = 0, model: nn.Module | None = None
) -> tuple[Part, ...]:
    """Images as they are sent at test time; also with the trigger of another image, if the attack knows such a thing.

    Args:
        trigger: crafted already if it has to be.
        samples: real images; shown are some of the sources, and none of the class that the trigger leads to.
        dose: target and sources; what is left open is up to the trigger, and its amounts do not matter.
        count: images to show, fewer where there are no more.
        seed: chooses them.
        model: a victim, whose answers are written under the images.

    Raises:
        ValueError: a dose or a trigger that does not fit the samples, or no image that the attack is about.
    """
    dose = dose.of(trigger)
    dose.check(len(samples.classes))
    ours = _some(samples, _victims(samples.labels, dose), count, seed)
    made = replace(stamp(trigger, ours), labels=wanted(dose.target, ours.labels))
    parts = [_part("stamped", "at test time", ours, made, "wanted ")]
    cross = getattr(trigger, "cross", None)
    if cross is not None:
        crossed = cross(to_float(ours.images))
        made = replace(ours, images=to_uint8(crossed) if ours.images.dtype == torch.uint8 else crossed)
        parts.append(_part("crossed", "must not work", ours, made, "still "))
    return tuple(parts) if model is None else tuple(_answered(part, model, samples.classes) for part in parts)


def trained(trigger: Trigger, samples: Samples, dose: Dose, *, count: int = 8, seed: int = 0) -> tuple[Part, ...]:
    """Poisoned training images, if they are or look other than what is sent at test time; and cover samples, if there are any.

    Takes and raises what `sent` does.
    """
    dose = dose.of(trigger)
    dose.check(len(samples.classes))
    pool, covers = _pool(trigger, samples, dose, count, seed)
    made, truth = poison(pool, trigger, replace(dose, count=len(pool) - covers, cover_rate=covers / len(pool)), seed=seed)
    parts = []
    poisoned = pool[truth.poisoned]
    if dose.clean_label or not torch.equal(made.images[truth.poisoned], stamp(trigger, poisoned).images):
        parts.append(_part("poisoned", "in training", poisoned, made[truth.poisoned], "label "))
    if truth.covers is not None and bool(truth.covers.any()):
        parts.append(_part("cover", "in training", pool[truth.covers], made[truth.covers], "label "))
    return tuple(parts)


def adversarial(
    evasion: Evasion, model: nn.Module, samples: Samples, *, target: int | None = None, count: int = 8, seed: int = 0
) -> tuple[Part, ...]:
    """Adversarial examples of images that the model names rightly (and of others, if there are too few), with its answers.

    Args:
        evasion: the attack.
        model: takes float images in [0, 1], gives logits; bit-identical afterwards.
        samples: real images; of the target's class none is attacked.
        target: class to reach; None for any wrong one.
        count: images to attack, fewer where there are no more.
        seed: chooses them, and of the attack's random draws.

    Raises:
        ValueError: a target that is no class, no images, or a model that does not fit.
    """
    check_number("target", target, f"[0, {len(samples.classes)})")
    some = _some(samples, torch.ones_like(samples.labels).bool() if target is None else samples.labels != target, 4 * count, seed)
    right = predict(model, some).argmax(1) == some.labels.cpu()
    first = _rows(some.labels, right, count, seed) if bool(right.any()) else torch.zeros(0, dtype=torch.int64)
    rest = (~right).nonzero().flatten()[: count - len(first)]
    ours = some[torch.cat([first, rest])].to(device_of(model))
    images = to_float(ours.images)
    made = attack(evasion, model, images, ours.labels, Goal(target), seed=seed)
    before, after = predict(model, ours).argmax(1), made.predicted
    names = ours.classes
    shown = Attacked(clean=images, perturbed=made.images, before=_names(before, names), after=_names(after, names))
    return (Part(name="adversarial", note=f"{int(made.fooled.sum())} of {len(ours)} succeed", shown=shown),)


def _pool(trigger: Trigger, samples: Samples, dose: Dose, count: int, seed: int) -> tuple[Samples, int]:
    """Images for poison, others for covers, and how many of the latter; none if the trigger has no such habit."""
    fit = torch.ones(len(samples), dtype=torch.bool)
    if dose.clean_label:
        fit = torch.isin(samples.labels.cpu(), torch.tensor(dose.target))
    elif dose.sources:
        fit = torch.isin(samples.labels.cpu(), torch.tensor(dose.sources))
    ours = _rows(samples.labels, fit, count, seed)
    if not isinstance(trigger, Cover) and getattr(trigger, "cover_ratio", 0.0) <= 0:
        return samples[ours], 0
    free = torch.ones(len(samples), dtype=torch.bool).index_fill_(0, ours, False)
    if dose.sources and not isinstance(trigger, Cover):
        free &= ~fit
    others = _rows(samples.labels, free, count, seed) if bool(free.any()) else ours[:0]
    return samples[torch.cat([ours, others])], len(others)


def _victims(labels: Tensor, dose: Dose) -> Tensor:
    """The images (n,) bool that the attack is about; all, where there is but one class, as of pictures that nobody labeled."""
    fit = wanted(dose.target, labels) != labels
    if dose.sources:
        return fit & torch.isin(labels, torch.tensor(dose.sources, device=labels.device))
    return fit if bool(fit.any()) else torch.ones_like(fit)


def _some(samples: Samples, fit: Tensor, count: int, seed: int) -> Samples:
    return samples[_rows(samples.labels, fit, count, seed)]


def _rows(labels: Tensor, fit: Tensor, count: int, seed: int) -> Tensor:
    """Positions of at most `count` of the samples that fit, in random order and as many of each class as there are.

    Raises:
        ValueError: none fits, or none is wanted.
    """
    check_number("count", count, "[1, inf)")
    rows = fit.cpu().nonzero().flatten()
    if not len(rows):
        raise ValueError("samples must hold images of the classes that the attack is about, got none")
    return rows[take(labels.cpu()[rows], min(count, len(rows)), seed)]


def _part(name: str, note: str, clean: Samples, made: Samples, mark: str) -> Part:
    shown = Attacked(
        clean=clean.images,
        perturbed=made.images,
        before=_names(clean.labels, clean.classes),
        after=_names(made.labels, made.classes, mark),
    )
    return Part(name=name, note=note, shown=shown)


def _answered(part: Part, model: nn.Module, classes: Sequence[str]) -> Part:
    """The same, with what the model answers under each image."""
    before, after = (_names(predict(model, images).argmax(1), classes) for images in (part.shown.clean, part.shown.perturbed))
    return replace(part, note=f"{part.note}, answers", shown=replace(part.shown, before=before, after=after))


def _names(labels: Tensor, classes: Sequence[str], mark: str = "") -> tuple[str, ...]:
    return tuple(f"{mark}{classes[i]}" for i in labels.tolist())
