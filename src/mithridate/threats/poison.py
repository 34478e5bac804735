"""Poisoning, one function for every data-poisoning attack: stamp a share of the images, relabel them, keep the truth apart."""

from __future__ import annotations

import torch

from mithridate.data import Samples, Truth, to_float, to_uint8
from mithridate.roles import Trigger
from mithridate.spec import to_spec

CHUNK = 256  # images whose floats stay in the processor's cache


def poison(clean: Samples, trigger: Trigger, *, target: int, rate: float, seed: int = 0) -> tuple[Samples, Truth]:
    """Stamp the trigger on a random share of the samples, of any class, and label them as the target.

    Images keep their dtype; uint8 images are stamped as floats, clipped and only then rounded back.

    Args:
        clean: n samples.
        trigger: what is stamped.
        target: class index in [0, classes).
        rate: share of all samples in (0, 1]; at least one sample is poisoned.
        seed: chooses the samples.

    Raises:
        ValueError: rate or target out of range, or a trigger that does not fit the images.

    Source: Gu et al. 2017, arXiv 1708.06733, section 4 (all-to-one).
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate must lie in (0, 1], got {rate}")
    if not 0 <= target < len(clean.classes):
        raise ValueError(f"target must lie in [0, {len(clean.classes)}), got {target}")
    count = max(1, round(rate * len(clean)))
    chosen = torch.randperm(len(clean), generator=torch.Generator().manual_seed(seed))[:count].sort().values
    images, labels = clean.images.clone(), clean.labels.clone()
    for part in chosen.split(CHUNK):
        images[part] = _stamp(trigger, images[part])
    labels[chosen] = target
    poisoned = torch.zeros(len(clean), dtype=torch.bool)
    poisoned[chosen] = True
    return Samples(images, labels, clean.classes, clean.names), Truth(poisoned, clean.labels, target, to_spec(trigger))


def stamp(trigger: Trigger, samples: Samples) -> Samples:
    """Every image stamped, labels untouched: what an attacker sends at test time. Images keep their dtype."""
    images = torch.cat([_stamp(trigger, part) for part in samples.images.split(CHUNK)])
    return Samples(images, samples.labels, samples.classes, samples.names)


def _stamp(trigger: Trigger, images: torch.Tensor) -> torch.Tensor:
    if images.dtype == torch.uint8 and getattr(trigger, "takes_uint8", False):
        return trigger.stamp(images)
    stamped = trigger.stamp(to_float(images))
    return to_uint8(stamped) if images.dtype == torch.uint8 else stamped
