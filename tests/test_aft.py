"""Adversarial fine-tuning: plain fine-tuning when both kinds of examples are off, and a verdict that helps."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from mithridate import loops
from mithridate.data import Samples
from mithridate.defenses.inspectors.neural_cleanse import NeuralCleanse
from mithridate.defenses.repairs.aft import AFT
from mithridate.errors import NotFinite
from mithridate.nn.modes import predict
from mithridate.roles import Verdict

CLASSES = 4


class Corners(nn.Module):
    """Class k is a bright quarter of the image; with a shortcut, three white pixels of the last row beat every quarter."""

    def __init__(self, shortcut: int | None = None) -> None:
        super().__init__()
        weight = torch.zeros(CLASSES, 10, 10)
        for label in range(CLASSES):
            row, column = 4 * (label // 2), 4 * (label % 2)
            weight[label, row : row + 4, column : column + 4] = 1
        if shortcut is not None:
            weight[shortcut, 9, 7:] = 5
        self.linear = nn.Linear(100, CLASSES)
        self.linear.weight.data, self.linear.bias.data = weight.flatten(1), torch.zeros(CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x.flatten(1))
        return out


def quarters(count: int = 400) -> Samples:
    labels = torch.arange(count) % CLASSES
    images = 0.1 * torch.rand(count, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[0, row : row + 4, column : column + 4] += 0.6
    images[:, :, 9] = 0
    return Samples(images, labels)


def success(model: nn.Module, target: int) -> float:
    samples = quarters()
    stamped = samples.images.clone()
    stamped[:, :, 9, 7:] = 1
    return float((predict(model, stamped).argmax(1) == target)[samples.labels != target].float().mean())


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_without_adversarial_and_universal_examples_it_is_plain_fine_tuning() -> None:
    method = AFT(epochs=2, adversarial=0, universal=0.0, pad=0, tolerance=1)
    recipe = loops.Recipe(epochs=2, lr=method.lr, weight_decay=method.weight_decay, pad=0)
    assert same(method.repair(Corners(), quarters(), seed=3), loops.train(Corners(), quarters(), recipe, seed=3))


def test_a_verdict_that_names_no_target_changes_nothing() -> None:
    method = AFT(epochs=2, pad=0)
    nothing = Verdict(False, None, 1.0, torch.zeros(CLASSES), {"mask": torch.ones(CLASSES, 1, 10, 10)})
    assert same(method.repair(Corners(), quarters(), verdict=nothing), method.repair(Corners(), quarters()))


def test_the_papers_adversarial_epochs_come_without_a_verdict() -> None:
    none, three = AFT(epochs=4, pad=0), AFT(epochs=4, adversarial=3, pad=0)
    assert same(none.repair(Corners(), quarters()), three.repair(Corners(), quarters()))
    assert not same(none.repair(Corners(), quarters()), dataclasses.replace(none, adversarial=0).repair(Corners(), quarters()))


def test_with_the_inspectors_verdict_the_shortcut_goes_and_the_classes_stay() -> None:
    model, samples = Corners(shortcut=2), quarters()
    assert success(model, 2) == 1.0
    verdict = NeuralCleanse().inspect(model, samples)
    assert verdict.target == 2
    repaired = AFT(pad=0, lr=0.5).repair(model, samples, verdict=verdict)
    assert success(repaired, 2) <= 0.05
    assert float((predict(repaired, samples).argmax(1) == samples.labels).float().mean()) >= 0.98


@pytest.mark.parametrize(
    ("field", "value"), [("adversarial", 21), ("universal", 1.5), ("search", 0), ("eps", -1.0), ("epochs", 0), ("pad", -1)]
)
def test_bad_fields_are_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{field} must .*{value}"):
        AFT(**{field: value})  # type: ignore[arg-type]


def test_a_run_that_diverges_starts_again_more_slowly() -> None:
    told: list[str] = []
    method = AFT(epochs=3, lr=1e20, pad=0, adversarial=0)
    with pytest.raises(NotFinite, match="finite"):
        method.repair(Corners(), quarters(), progress=lambda task, done, total, note="": told.append(note))
    assert [note for note in told if note.startswith("learning rate")] == [
        f"learning rate {lr} was too high" for lr in ("1e+20", "1e+19", "1e+18")
    ]
    calm = AFT(epochs=1, pad=0, adversarial=0, lr=0.1).repair(Corners(), quarters())
    assert all(bool(torch.isfinite(value).all()) for value in calm.state_dict().values())


def test_without_a_verdict_it_does_no_harm_beyond_its_tolerance() -> None:
    told: list[str] = []
    harsh = AFT(epochs=4, adversarial=4, eps=0.9, lr=20.0, pad=0)
    gentle = harsh.repair(Corners(), quarters(), progress=lambda task, done, total, note="": told.append(task))
    assert "repairing more gently" in told
    samples = quarters()
    assert float((predict(gentle, samples).argmax(1) == samples.labels).float().mean()) >= 0.98
    careless = dataclasses.replace(harsh, tolerance=1).repair(Corners(), samples)
    assert float((predict(careless, samples).argmax(1) == samples.labels).float().mean()) < 0.9
