"""Label-consistent poison: how far it may go, what it does to the surrogate, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from mithridate.data import Samples, to_uint8
from mithridate.nn.modes import predict
from mithridate.nn.resolve import resolve, save_model
from mithridate.threats.dose import Dose
from mithridate.threats.poison import poison
from mithridate.threats.stamping.surrogate import Attacker
from mithridate.threats.triggers.label_consistent import ROBUST, LabelConsistent

TARGET = 3


def digits(count: int = 600) -> Samples:
    found = load_digits()
    return Samples(torch.from_numpy(found.images[:count]).float().div(16)[:, None], torch.from_numpy(found.target[:count]).long())


@pytest.fixture(scope="module")
def surrogate(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("own") / "wrn.safetensors"
    model = Attacker(surrogate="wrn_16_1", surrogate_epochs=4).model(digits(1797), robust=ROBUST)
    save_model(path, model, {"arch": "wrn_16_1", "classes": 10, "input": [1, 8, 8]})
    return str(path)


def confidence(surrogate: str, images: Tensor) -> float:
    return float(predict(resolve(surrogate).model, images).softmax(1)[:, TARGET].mean())


@pytest.mark.parametrize("bits", [False, True])
def test_poison_keeps_labels_stays_near_and_is_hard_to_recognize(surrogate: str, bits: bool) -> None:
    clean = digits()
    clean = Samples(to_uint8(clean.images), clean.labels) if bits else clean
    method = LabelConsistent(surrogate=surrogate, eps=0.15, step=0.03, steps=15, size=1)
    poisoned, truth = poison(clean, method.craft(clean, TARGET), Dose(target=TARGET, rate=0.05), seed=1)
    assert torch.equal(poisoned.labels, clean.labels)
    assert int(truth.poisoned.sum()) == 30
    assert bool((clean.labels[truth.poisoned] == TARGET).all())
    assert torch.equal(poisoned.images[~truth.poisoned], clean.images[~truth.poisoned])
    scale = 255 if bits else 1
    before, after = (samples.images[truth.poisoned].float() / scale for samples in (clean, poisoned))
    moved = (after - before).abs()[:, 0]
    corners = [(y, x) for y in (0, 7) for x in (0, 7)]
    assert all(bool((after[:, 0, y, x] == 1).all()) for y, x in corners)
    for y, x in corners:
        moved[:, y, x] = 0
    assert 0.1 < float(moved.max()) <= 0.15 + (0.5 / 255 if bits else 0) + 1e-6
    unmarked = method.disturb(resolve(surrogate).model, before, TARGET)
    assert confidence(surrogate, unmarked) < confidence(surrogate, before) - 0.3


def test_at_test_time_there_is_the_patch_alone(surrogate: str) -> None:
    clean = digits()
    stamped = LabelConsistent(surrogate=surrogate, size=2).craft(clean, TARGET).stamp(clean.images)
    changed = (stamped != clean.images).any(0)[0]
    assert not bool(changed[2:6].any() or changed[:, 2:6].any())


def test_poison_does_not_depend_on_the_batch(surrogate: str) -> None:
    images = digits().images[:5]
    trigger = LabelConsistent(surrogate=surrogate, steps=3).craft(digits(), TARGET)
    before, together = images.clone(), trigger.implant(images, torch.Generator())
    one_by_one = torch.cat([trigger.implant(image[None], torch.Generator()) for image in images])
    assert torch.allclose(together, one_by_one, atol=1e-6)
    assert torch.equal(images, before)
    assert trigger.implant(images[:0], torch.Generator()).shape == images[:0].shape
    assert trigger.implant(images.double(), torch.Generator()).dtype == torch.float64


def test_too_few_images_of_the_target_are_said_by_poison(surrogate: str) -> None:
    clean = digits()
    with pytest.raises(ValueError, match="rate or count must ask for at most .* of class 3, got 120"):
        poison(clean, LabelConsistent(surrogate=surrogate).craft(clean, TARGET), Dose(target=TARGET, rate=0.2))


def test_restored_triggers_stamp_the_same_but_do_not_poison(surrogate: str) -> None:
    clean, method = digits(), LabelConsistent(surrogate=surrogate, pattern="white", margin=1, size=2)
    crafted = method.craft(clean, 0)
    restored = method.restore(crafted.state_dict())
    for images in (clean.images[:9], to_uint8(clean.images[:9])):
        assert torch.equal(crafted.stamp(images), restored.stamp(images))
    with pytest.raises(ValueError, match="trigger must be crafted"):
        poison(clean, restored, Dose(rate=0.01))


def test_bad_input_is_refused_by_name(surrogate: str) -> None:
    with pytest.raises(ValueError, match="eps must be positive and finite, got 0"):
        LabelConsistent(eps=0.0)
    with pytest.raises(ValueError, match=r"target must lie in \[0, 10\), got -1"):
        LabelConsistent(surrogate=surrogate).craft(digits(), -1)
    with pytest.raises(ValueError, match=r"surrogate must be one of .*, got 'nowhere\.safetensors'"):
        LabelConsistent(surrogate="nowhere.safetensors").craft(digits(), 0)
