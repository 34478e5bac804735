"""The attacker's own model, and the patches fitted to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

import mithridate.threats  # noqa: F401  fills the registry
from mithridate.data import Samples
from mithridate.errors import BadFile
from mithridate.nn.ascent import Budget, ascend
from mithridate.nn.models import initialize
from mithridate.nn.modes import predict
from mithridate.nn.resolve import save_model
from mithridate.spec import parse
from mithridate.threats.dose import Dose
from mithridate.threats.poison import poison, stamp
from mithridate.threats.stamping.clean_label import CleanLabelPatch
from mithridate.threats.stamping.fitted import PatchFitter, PatchTrigger
from mithridate.threats.stamping.surrogate import Attacker, draw


def digits(count: int = 1797) -> Samples:
    found = load_digits()
    return Samples(torch.from_numpy(found.images[:count]).float().div(16)[:, None], torch.from_numpy(found.target[:count]).long())


def noise(height: int, width: int, channels: int = 3, dtype: torch.dtype = torch.uint8, count: int = 24) -> Samples:
    images = torch.randint(0, 256, (count, channels, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.arange(count) % 3
    return Samples(images if dtype == torch.uint8 else images.to(dtype) / 255, labels)


def right(model: torch.nn.Module, samples: Samples) -> float:
    return float((predict(model, samples).argmax(1) == samples.labels).float().mean())


def test_it_is_trained_on_the_samples() -> None:
    told: list[tuple[str, int, int]] = []
    model = Attacker(surrogate="lenet", surrogate_epochs=6).model(digits(), progress=lambda *step: told.append(step[:3]))
    assert right(model, digits()) > 0.7
    assert not model.training
    assert told[-1] == ("training a surrogate", told[-1][2], told[-1][2])


def test_adversarial_training_makes_it_harder_to_fool() -> None:
    samples, budget = digits(1000), Budget(eps=0.1, step=0.12, steps=1, random_start=True)
    attacker = Attacker(surrogate="lenet", surrogate_epochs=12)
    plain, robust = attacker.model(samples), attacker.model(samples, robust=budget)
    fooled = [
        float(ascend(model, samples.images[:300], samples.labels[:300], Budget(eps=0.1, steps=10)).fooled.float().mean())
        for model in (plain, robust)
    ]
    assert right(robust, samples) > 0.8
    assert fooled[1] < fooled[0] - 0.1


def test_same_seed_same_model_and_global_generator_untouched() -> None:
    attacker, samples = Attacker(surrogate="lenet", surrogate_epochs=1), digits(200)
    budget = Budget(eps=0.1, steps=1, random_start=True)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (attacker.model(samples, robust=budget, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_one_file_serves_many_attacks(tmp_path: Path) -> None:
    stored = initialize("wrn_16_1", 7, classes=10, channels=1, size=8).eval()
    path = tmp_path / "own.safetensors"
    save_model(path, stored, {"arch": "wrn_16_1", "classes": 10, "input": [1, 8, 8]})
    samples = digits(20)
    model = Attacker(surrogate=str(path)).model(samples)
    assert torch.equal(predict(model, samples), predict(stored, samples))
    with pytest.raises(BadFile, match=r"has shape \(10.*, the model needs \(2"):
        Attacker(surrogate=str(path)).model(Samples(samples.images[:2], torch.tensor([0, 1])))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize(("height", "width", "channels"), [(8, 8, 1), (12, 20, 3), (64, 40, 1)])
def test_any_images_will_do(height: int, width: int, channels: int, dtype: torch.dtype) -> None:
    samples = noise(height, width, channels, dtype)
    model = Attacker(surrogate_epochs=1).model(samples)
    assert predict(model, samples.images.float() / (255 if dtype == torch.uint8 else 1)).shape == (24, 3)


@pytest.mark.parametrize("spec", ["trojan_nn:samples=9", "latent:samples=4", "label_consistent", "feature_collision:samples=9"])
@pytest.mark.parametrize(
    ("height", "width", "channels", "dtype"), [(8, 8, 1, torch.uint8), (12, 20, 3, torch.float64), (64, 40, 3, torch.uint8)]
)
def test_triggers_are_crafted_from_any_images(spec: str, height: int, width: int, channels: int, dtype: torch.dtype) -> None:
    clean, method = noise(height, width, channels, dtype), parse(spec)
    trigger = replace(method, surrogate_epochs=1, steps=1).craft(clean, 1)
    poisoned, truth = poison(clean, trigger, Dose(target=1, rate=0.2))
    assert poisoned.images.dtype == dtype
    assert bool((poisoned.images != clean.images).flatten(1).any(1)[truth.poisoned].all())
    assert stamp(trigger, clean).images.shape == clean.images.shape


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    samples = noise(12, 20)
    with pytest.raises(ValueError, match=r"surrogate must be one of .*wrn_16_1.* or a model file, got 'wrn_99'"):
        Attacker(surrogate="wrn_99").model(samples)
    with pytest.raises(ValueError, match=r"surrogate must take images of \(3, 12, 20\), got 'lenet'"):
        Attacker(surrogate="lenet").model(samples)
    with pytest.raises(ValueError, match="layer 'body' is not in the model"):
        Attacker().model(samples, "body")
    with pytest.raises(ValueError, match=r"target must lie in \[0, 3\), got 3"):
        Attacker().check(samples, 3)
    with pytest.raises(ValueError, match="clean must not be empty"):
        Attacker().check(samples[:0], 0)
    with pytest.raises(ValueError, match=r"size \+ margin must be at most 12, got 10 \+ 3"):
        PatchFitter(size=10, margin=3).check(samples, 0)


def test_images_are_drawn_from_the_chosen_classes_and_only_once() -> None:
    samples = digits(300)
    drawn = draw(samples, torch.tensor([3]), 20, torch.Generator().manual_seed(0))
    threes = samples.images[samples.labels == 3]
    hits = (drawn[:, None] == threes[None]).flatten(2).all(2)
    assert bool((hits.sum(1) == 1).all())
    assert int(hits.sum(0).max()) == 1
    with pytest.raises(ValueError, match=f"samples must be at most {len(threes)}, as there are of class 3, got 99"):
        draw(samples, torch.tensor([3]), 99, torch.Generator())


@pytest.mark.parametrize("channels", [1, 3])
def test_a_fitted_patch_finds_the_least_of_a_known_loss(channels: int) -> None:
    """Of |patch - aim|, whose only minimum is the aim itself."""
    aim = torch.rand(channels, 3, 3, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1
    model = initialize("lenet", 0, classes=2, channels=channels, size=8)

    def distance(stamped: Tensor) -> Tensor:
        return (stamped[:, :, 4:7, 4:7] - aim).square().mean()

    found = PatchFitter(steps=300, size=3, margin=1).fit(model, distance, torch.rand(5, channels, 8, 8), torch.Generator(), lambda *_: None)
    assert torch.allclose(found.patch, aim, atol=0.01)
    assert torch.equal((found.patch * 255).round() / 255, found.patch), "what a uint8 image can hold"


def test_patches_are_pasted_exactly_on_floats_and_bytes() -> None:
    patch = torch.tensor([0, 51, 102, 255, 1, 77, 200, 128, 9, 10, 11, 12]).float().view(3, 2, 2) / 255
    trigger = PatchTrigger(patch, torch.tensor([3, 5, 4]), "top-left", 1)
    floats = trigger.stamp(torch.zeros(2, 3, 5, 4))
    assert torch.equal(floats[:, :, 1:3, 1:3], patch.expand(2, -1, -1, -1))
    assert float(floats.sum()) == pytest.approx(2 * float(patch.sum()))
    assert torch.equal(trigger.stamp(torch.zeros(2, 3, 5, 4, dtype=torch.uint8)), floats.mul(255).round().to(torch.uint8))
    with pytest.raises(ValueError, match=r"images must .*\(3, 5, 4\), got \(1, 5, 4\)"):
        trigger.stamp(torch.zeros(2, 1, 5, 4))


def test_a_restored_clean_label_patch_does_not_pretend_to_poison() -> None:
    trigger = CleanLabelPatch(torch.ones(1, 2, 2), torch.tensor([1, 8, 8]), "all", 0)
    with pytest.raises(ValueError, match="trigger must be crafted from data to poison with it"):
        trigger.implant(torch.zeros(1, 1, 8, 8), torch.Generator())
