"""Poisoning, one function for every data-poisoning attack: stamp a share of the images, relabel them, keep the truth apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from mithridate.data import Samples, Truth, to_float, to_uint8
from mithridate.roles import Cover, Craft, Implant, Progress, Trigger, silent
from mithridate.spec import to_spec
from mithridate.threats.dose import Dose, wanted

CHUNK = 256  # images whose floats stay in the processor's cache


def ready(trigger: Trigger | Craft, clean: Samples, target: object, *, seed: int = 0, progress: Progress = silent) -> Trigger:
    """The trigger as it is, or, of one that has to be made from data, the crafted one.

    Raises:
        ValueError: a target map for a trigger that is crafted towards one class.
    """
    if not isinstance(trigger, Craft):
        return trigger
    if not isinstance(target, int):
        raise ValueError(f"target must be one class for {to_spec(trigger)}, got {target}")
    return trigger.craft(clean, target, seed=seed, progress=progress)


def poison(clean: Samples, trigger: Trigger, dose: Dose = Dose(), *, seed: int = 0, progress: Progress = silent) -> tuple[Samples, Truth]:
    """Stamp the trigger on a random share of the samples and label them as the dose says.

    Images keep their dtype; uint8 images are stamped as floats, clipped and only then rounded back. Rival triggers of one dose
    and seed poison the same images.

    Args:
        clean: n samples.
        trigger: what is stamped, crafted already if it has to be.
        dose: how many samples, of which classes, towards what.
        seed: chooses the samples, and what chance there is in stamping.
        progress: told how many samples are stamped.

    Raises:
        ValueError: a dose or a trigger that does not fit the samples.

    Source: Gu et al. 2017, arXiv 1708.06733, section 4 (all-to-one, all-to-all); Turner et al. 2019, arXiv 1912.02771
    (clean-label); Tang et al. 2021, arXiv 1908.00686 (sources and cover samples).
    """
    dose = dose.of(trigger)
    dose.check(len(clean.classes))
    poisoned, covers = dose.choose(clean.labels, trigger, seed)
    images, labels = clean.images.clone(), clean.labels.clone()
    generator = torch.Generator().manual_seed(seed)
    implant, cover = _implant(trigger, generator), _cover(trigger, generator)
    steps = [(implant, part) for part in poisoned.split(CHUNK)] + [(cover, part) for part in covers.split(CHUNK)]
    for i, (change, part) in enumerate(steps):
        images[part] = change(images[part], labels[part])
        progress("poisoning", i + 1, len(steps))
    if not dose.clean_label:
        labels[poisoned] = wanted(dose.target, labels[poisoned])
    masks = [torch.zeros(len(clean), dtype=torch.bool).index_fill_(0, rows, True) for rows in (poisoned, covers)]
    truth = Truth(masks[0], clean.labels, dose.target, describe(trigger), masks[1], dose.sources or ())
    return Samples(images, labels, clean.classes, clean.names), truth


def stamp(trigger: Trigger, samples: Samples) -> Samples:
    """Every image stamped, labels untouched: what an attacker sends at test time. Images keep their dtype."""
    images = torch.cat([_stamp(trigger, part) for part in samples.images.split(CHUNK)])
    return Samples(images, samples.labels, samples.classes, samples.names)


def describe(trigger: object) -> str:
    """The specification of a trigger, or the name of its class if it is no method."""
    return to_spec(trigger) if dataclasses.is_dataclass(trigger) else type(trigger).__name__


def _stamp(trigger: Trigger, images: Tensor) -> Tensor:
    if images.dtype == torch.uint8 and getattr(trigger, "takes_uint8", False):
        return trigger.stamp(images)
    return _like(images, trigger.stamp(to_float(images)))


Change = Callable[[Tensor, Tensor], Tensor]


def _implant(trigger: Trigger, generator: torch.Generator) -> Change:
    if isinstance(trigger, Implant):
        return lambda images, labels: _like(images, trigger.implant(to_float(images), generator))
    return lambda images, labels: _stamp(trigger, images)


def _cover(trigger: Trigger, generator: torch.Generator) -> Change:
    if isinstance(trigger, Cover):
        return lambda images, labels: _like(images, trigger.cover(to_float(images), labels, generator))
    return _implant(trigger, generator)


def _like(images: Tensor, made: Tensor) -> Tensor:
    return to_uint8(made) if images.dtype == torch.uint8 else made
