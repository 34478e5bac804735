"""The latent backdoor: how near its patch brings features to the target's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attackers import digits, features
from mithridate.data import to_uint8
from mithridate.nn.resolve import resolve
from mithridate.nn.taps import trace_all
from mithridate.threats.stamping.fitted import PatchTrigger
from mithridate.threats.triggers.latent import Latent

TARGET = 3


def test_features_approach_the_mean_of_the_target(surrogate: str) -> None:
    clean = digits()
    others, mean = clean.images[clean.labels != TARGET], features(surrogate, clean.images[clean.labels == TARGET]).mean(0)

    def distance(images: Tensor) -> float:
        return float((features(surrogate, images) - mean).square().sum(1).mean())

    trigger = Latent(surrogate=surrogate, samples=40, steps=150, size=4).craft(clean, TARGET)
    random = PatchTrigger(torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 8, 8]), "bottom-right", 0)
    assert distance(trigger.stamp(others)) < 0.7 * distance(others)
    assert distance(trigger.stamp(others)) < 0.85 * distance(random.stamp(others))


def test_every_target_gets_its_own_patch(surrogate: str) -> None:
    clean, method = digits(), Latent(surrogate=surrogate, samples=40, steps=60, size=4)
    triggers = [method.craft(clean, target) for target in (0, TARGET)]
    predicted = [resolve(surrogate).model(trigger.stamp(clean.images)).argmax(1) for trigger in triggers]
    assert int((predicted[0] == 0).sum()) > int((predicted[1] == 0).sum()) + 30
    assert int((predicted[1] == TARGET).sum()) > int((predicted[0] == TARGET).sum()) + 30


def test_a_named_layer_is_matched(surrogate: str) -> None:
    clean, method = digits(), Latent(surrogate=surrogate, samples=40, steps=60, layer="1.2")
    model = resolve(surrogate).model
    trigger = method.craft(clean, TARGET)
    plain, stamped, aims = (
        trace_all(model, images, ["1.2"]).activations["1.2"]
        for images in (clean.images, trigger.stamp(clean.images), clean.images[clean.labels == TARGET])
    )
    assert float((stamped - aims.mean(0)).square().mean()) < float((plain - aims.mean(0)).square().mean())


def test_restored_triggers_stamp_the_same(surrogate: str) -> None:
    clean, method = digits(), Latent(surrogate=surrogate, samples=10, steps=5, size=3, corner="all")
    crafted = method.craft(clean, 0)
    restored = method.restore(crafted.state_dict())
    for images in (clean.images[:9], to_uint8(clean.images[:9])):
        assert torch.equal(crafted.stamp(images), restored.stamp(images))


def test_bad_input_is_refused_by_name(surrogate: str) -> None:
    clean = digits()
    with pytest.raises(ValueError, match="samples must be at most .*, as there are of class 3, got 100"):
        Latent(surrogate=surrogate).craft(clean, TARGET)
    with pytest.raises(ValueError, match="layer 'flatten' is not in the model"):
        Latent(surrogate=surrogate, samples=10, layer="flatten").craft(clean, TARGET)
    with pytest.raises(ValueError, match="clean must hold images of other classes than target, got only class 3"):
        Latent(surrogate=surrogate, samples=10).craft(clean[clean.labels == TARGET], TARGET)
    with pytest.raises(ValueError, match="clean must not be empty"):
        Latent(surrogate=surrogate, samples=10).craft(clean[:0], TARGET)
