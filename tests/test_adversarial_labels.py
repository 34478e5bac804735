"""The histogram of adversarial labels: a planted attractor is named, agreeing favorites are told from scattered ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mithridate.data import Samples
from mithridate.defenses.inspectors.adversarial_labels import AdversarialLabels, agreement_p_value, landing_shares


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Prototypes(nn.Module):
    """Every class has a bright block of its own; with `attractor`, weak pixels everywhere lead to that class."""

    def __init__(self, classes: int = 6, attractor: int | None = None) -> None:
        super().__init__()
        weight = torch.zeros(classes, classes + 1, 8)
        for label in range(classes):
            weight[label, label] = 1.0
        if attractor is not None:
            weight[attractor, classes] = 25.0
        self.register_buffer("weight", weight.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.get_buffer("weight").T


def blocks(classes: int = 6, each: int = 20) -> Samples:
    labels = torch.arange(classes * each) % classes
    images = 0.02 * torch.rand(len(labels), classes + 1, 8, generator=seeded())
    images[:, classes] = 0
    images[torch.arange(len(labels)), labels] += 0.5
    return Samples(images[:, None], labels)


def test_planted_attractor_is_named() -> None:
    verdict = AdversarialLabels(eps=0.1).inspect(Prototypes(attractor=3), blocks())
    assert verdict.infected
    assert verdict.target == 3
    assert verdict.p_value <= 0.01
    assert float(verdict.per_class[3]) == 1.0
    assert int(verdict.evidence["landings"][:, 3].sum()) == 100
    assert int(verdict.evidence["landings"].diagonal().sum()) == 0
    assert "land on class 3" in verdict.note


def test_scattered_landings_are_not_infected() -> None:
    verdict = AdversarialLabels(eps=0.3).inspect(Prototypes(), blocks())
    assert not verdict.infected
    assert verdict.target is None
    assert verdict.p_value > 0.01
    assert int(verdict.evidence["landings"].sum()) > 50


def test_nothing_fooled_says_nothing() -> None:
    verdict = AdversarialLabels(eps=0.001).inspect(Prototypes(), blocks())
    assert (verdict.infected, verdict.target, verdict.p_value) == (False, None, 1.0)
    assert float(verdict.per_class.abs().sum()) == 0


def test_shares_leave_the_class_itself_out() -> None:
    counts = torch.tensor([[0.0, 3.0, 1.0], [4.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    assert landing_shares(counts).tolist() == pytest.approx([4 / 6, 5 / 6, 1 / 8])


def test_favorites_without_agreement_are_no_evidence() -> None:
    """Each class falls to its neighbor: rows as concentrated as can be, yet no column stands out."""
    ring = 50.0 * torch.eye(10).roll(1, 1)
    assert agreement_p_value(ring, 499, seeded()) > 0.5
    agreed = torch.zeros(10, 10)
    agreed[1:, 0] = 50
    assert agreement_p_value(agreed, 499, seeded()) <= 1 / 500


def test_p_values_of_scattered_tables_are_uniform() -> None:
    """Under its own null the p-value must not be small more often than it says."""
    generator, values = seeded(1), []
    for _ in range(200):
        table = torch.rand(8, 8, generator=generator).pow(6).mul(30).round().fill_diagonal_(0)
        values.append(agreement_p_value(table, 99, generator))
    assert sum(v <= 0.05 for v in values) / 200 < 0.1
    assert 0.35 < sum(v <= 0.5 for v in values) / 200 < 0.65


def test_two_classes_and_empty_tables_leave_nothing_to_compare() -> None:
    assert agreement_p_value(torch.tensor([[0.0, 9.0], [1.0, 0.0]]), 99, seeded()) == 1.0
    assert agreement_p_value(torch.zeros(5, 5), 99, seeded()) == 1.0


@pytest.mark.parametrize(
    ("field", "value"), [("eps", 0.0), ("steps", 0), ("limit", 0), ("simulations", 0), ("alpha", 0.0), ("floor", 1.5), ("batch_size", 0)]
)
def test_wrong_settings_are_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{field} must .*got {value}"):
        AdversarialLabels(**{field: value})


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(ValueError, match="clean must not be empty"):
        AdversarialLabels().inspect(Prototypes(), blocks()[:0])
