"""Trigger reversal: a planted shortcut is named, its twin without it is left alone, and the model comes back untouched."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from mithridate.data import Samples
from mithridate.defenses.inspectors.neural_cleanse import NeuralCleanse


class Blocks(nn.Module):
    """Class k is a bright block of 4x4 pixels; with `shortcut`, two white pixels of the last corner beat every block."""

    def __init__(self, shortcut: int | None = None) -> None:
        super().__init__()
        weight = torch.zeros(6, 12, 12)
        for label in range(6):
            row, col = 4 * (label // 3), 4 * (label % 3)
            weight[label, row : row + 4, col : col + 4] = 1
        if shortcut is not None:
            weight[shortcut, 11, 10:] = 20
        self.linear = nn.Linear(144, 6)
        self.linear.weight.data, self.linear.bias.data = weight.flatten(1), torch.zeros(6)
        self.drop = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.drop(x.flatten(1)))
        return out


def blocks(count: int = 600) -> Samples:
    labels = torch.arange(count) % 6
    images = 0.1 * torch.rand(count, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    for image, label in zip(images, labels.tolist(), strict=True):
        row, col = 4 * (label // 3), 4 * (label % 3)
        image[0, row : row + 4, col : col + 4] += 0.6
    images[:, :, 11] = 0
    return Samples(images, labels)


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_shortcut_is_named(seed: int) -> None:
    verdict = NeuralCleanse().inspect(Blocks(shortcut=4), blocks(), seed=seed)
    assert verdict.infected and verdict.target == 4
    assert verdict.p_value <= 0.05
    assert int(verdict.per_class.argmax()) == 4
    assert float(verdict.evidence["success"][4]) >= 0.85
    assert float(verdict.evidence["mask"][4, 0, 11, 10:].sum()) > 0.5 * float(verdict.evidence["norms"][4])


@pytest.mark.parametrize("seed", [0, 1])
def test_twin_without_it_is_not_infected(seed: int) -> None:
    verdict = NeuralCleanse().inspect(Blocks(), blocks(), seed=seed)
    assert not verdict.infected and verdict.target is None
    assert verdict.p_value > 0.05


def test_evidence_has_its_shapes_and_ranges() -> None:
    evidence = NeuralCleanse(steps=20).inspect(Blocks(), blocks()).evidence
    assert evidence["mask"].shape == evidence["pattern"].shape == (6, 1, 12, 12)
    assert evidence["norms"].shape == evidence["success"].shape == (6,)
    for tensor in (evidence["mask"], evidence["pattern"], evidence["success"]):
        assert 0 <= float(tensor.min()) <= float(tensor.max()) <= 1


def test_model_and_global_generator_come_back_untouched() -> None:
    model = Blocks().train()
    model.linear.bias.requires_grad_(False)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    NeuralCleanse(steps=5).inspect(model, blocks())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training and model.drop.training
    assert model.linear.weight.requires_grad and not model.linear.bias.requires_grad
    assert model.linear.weight.grad is None
    assert torch.equal(state, torch.get_rng_state())


def test_same_seed_same_verdict_and_bytes_as_floats() -> None:
    clean = blocks()
    coded = Samples(clean.images.mul(255).round().to(torch.uint8), clean.labels)
    plain = Samples(coded.images.float() / 255, clean.labels)
    one, two = (NeuralCleanse(steps=30).inspect(Blocks(), samples, seed=3) for samples in (coded, plain))
    assert torch.equal(one.evidence["mask"], two.evidence["mask"])
    assert one.p_value == two.p_value


def test_no_trigger_within_the_budget_is_no_verdict() -> None:
    verdict = NeuralCleanse(steps=1).inspect(Blocks(shortcut=1), blocks())
    assert not verdict.infected
    assert verdict.p_value == 1


def test_settled_classes_stop_the_search() -> None:
    steps: list[int] = []
    NeuralCleanse(patience=5, restarts=1).inspect(Blocks(4), blocks(), progress=lambda task, done, total, note="": steps.append(done))
    assert 5 < len(steps) < 300
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("patience", 0),
        ("limit", 9),
        ("success", 1.0),
        ("alpha", 0.0),
        ("transfer", 1.5),
        ("learning_rate", 0.0),
    ],
)
def test_wrong_settings_are_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{field} must .*got {value}"):
        NeuralCleanse(**{field: value})


def test_too_few_images_are_named() -> None:
    with pytest.raises(ValueError, match="^clean must hold at least 10 images, got 9"):
        NeuralCleanse().inspect(Blocks(), blocks()[:9])
