"""Feature collision: poison that is near in pixels to its own class, and in features to stamped images of others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attackers import digits, features
from mithridate.data import to_uint8
from mithridate.nn.resolve import resolve
from mithridate.nn.taps import last_hidden
from mithridate.threats.dose import Dose
from mithridate.threats.poison import poison
from mithridate.threats.triggers.feature_collision import FeatureCollision

TARGET = 3


def nearest(own: Tensor, others: Tensor) -> float:
    """Mean distance to the nearest of the others."""
    return float(torch.cdist(own, others).amin(1).mean())


@pytest.mark.parametrize("opacity", [0.0, 0.3])
def test_poison_collides_in_features_and_stays_near_in_pixels(surrogate: str, opacity: float) -> None:
    clean = digits()
    method = FeatureCollision(surrogate=surrogate, eps=0.15, step=0.02, steps=30, opacity=opacity, samples=200, size=3)
    trigger = method.craft(clean, TARGET)
    poisoned, truth = poison(clean, trigger, Dose(target=TARGET, rate=0.05), seed=1)
    assert torch.equal(poisoned.labels, clean.labels)
    assert bool((clean.labels[truth.poisoned] == TARGET).all())
    before, after = clean.images[truth.poisoned], poisoned.images[truth.poisoned]
    watermarked = (1 - opacity) * before + opacity * trigger.stamp(before)
    assert 0.1 < float((after - watermarked).abs().max()) <= 0.15 + 1e-6
    assert 0 <= float(after.min()) <= float(after.max()) <= 1
    victims = features(surrogate, trigger.stamp(clean.images[clean.labels != TARGET]))
    assert nearest(features(surrogate, after), victims) < 0.9 * nearest(features(surrogate, watermarked), victims)


def test_the_collision_lowers_the_distance_of_each_image_that_is_not_there_already(surrogate: str) -> None:
    clean, method = digits(), FeatureCollision(eps=0.1, step=0.01, steps=30)
    model = resolve(surrogate).model
    images, aims = clean.images[:20], features(surrogate, clean.images[20:40])
    found = method.collide(model, images, aims, last_hidden(model, images[:1]))
    before, after = ((features(surrogate, x) - aims).square().sum(1) for x in (images, found))
    far = before > 1  # steps of one length overshoot where there is less to go
    assert int(far.sum()) > 10 and bool((after < before)[far].all())
    assert not found.requires_grad and not images.requires_grad


def test_partners_are_drawn_and_the_nearest_is_taken(surrogate: str) -> None:
    clean = digits()
    distances = []
    for partners in (1, 50):
        method = FeatureCollision(surrogate=surrogate, partners=partners, steps=1, step=1e-6, samples=100)
        aims = method._nearest(features(surrogate, clean.images[:30]), features(surrogate, clean.images[100:200]), torch.Generator())
        distances.append(float((aims - features(surrogate, clean.images[:30])).square().sum(1).mean()))
    assert distances[1] < 0.8 * distances[0]


def test_chance_comes_from_the_generator(surrogate: str) -> None:
    clean = digits()
    trigger = FeatureCollision(surrogate=surrogate, steps=3, samples=100).craft(clean, TARGET)
    first, again, other = (trigger.implant(clean.images[:4], torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert trigger.implant(clean.images[:0], torch.Generator()).shape == (0, 1, 8, 8)
    assert trigger.implant(clean.images[:2].half(), torch.Generator()).dtype == torch.float16


def test_restored_triggers_stamp_the_same_but_do_not_poison(surrogate: str) -> None:
    clean, method = digits(), FeatureCollision(surrogate=surrogate, steps=1, samples=50)
    crafted = method.craft(clean, 0)
    restored = method.restore(crafted.state_dict())
    for images in (clean.images[:9], to_uint8(clean.images[:9])):
        assert torch.equal(crafted.stamp(images), restored.stamp(images))
    with pytest.raises(ValueError, match="trigger must be crafted"):
        poison(clean, restored, Dose(rate=0.01))


def test_bad_input_is_refused_by_name(surrogate: str) -> None:
    clean = digits()
    with pytest.raises(ValueError, match=r"opacity must lie in \[0, 1\], got 1\.5"):
        FeatureCollision(opacity=1.5)
    with pytest.raises(ValueError, match="samples must be at most .*, as there are of 9 classes, got 700"):
        FeatureCollision(surrogate=surrogate, samples=700).craft(clean, TARGET)
    with pytest.raises(ValueError, match="layer 'body' is not in the model"):
        FeatureCollision(surrogate=surrogate, samples=100, layer="body").craft(clean, TARGET)
    with pytest.raises(ValueError, match=r"size \+ margin must be at most 8, got 5 \+ 4"):
        FeatureCollision(surrogate=surrogate, samples=100, margin=4).craft(clean, TARGET)
