"""The judge counts as a person would."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mithridate.data import Samples
from mithridate.judge import Key, accuracy, attack_success, robust_accuracy
from mithridate.roles import Goal
from mithridate.threats.evasion.pgd import PGD
from mithridate.threats.triggers.badnets import BadNets


class Corner(nn.Module):
    """Says the class written into the first pixel, unless the last pixel is white: then class 2."""

    def forward(self, x: Tensor) -> Tensor:
        label = (x[:, 0, 0, 0] * 10).round().long().clamp(0, 3)
        return nn.functional.one_hot(torch.where(x[:, 0, -1, -1] > 0.99, 2, label), 4).float()


def samples(labels: list[int], written: list[int] | None = None) -> Samples:
    images = torch.zeros(len(labels), 1, 4, 4)
    images[:, 0, 0, 0] = torch.tensor(written or labels) / 10
    return Samples(images, torch.tensor(labels), ("a", "b", "c", "d"))


KEY = Key(BadNets(size=1), 2, "badnets:size=1")


def test_clean_accuracy() -> None:
    rate = accuracy(Corner(), samples([0, 1, 2, 3, 3], [0, 1, 1, 3, 0]))
    assert (rate.hits, rate.of) == (3, 5)


def test_attack_success_leaves_the_target_class_out() -> None:
    clean = samples([0, 1, 2, 2, 3])
    before = clean.images.clone()
    success, robust = attack_success(Corner(), clean, KEY)
    assert (success.hits, success.of, robust.hits, robust.of) == (3, 3, 0, 3)
    assert torch.equal(clean.images, before)
    immune = attack_success(Corner(), clean, Key(BadNets(size=1, corner="top-left"), 2, "badnets"))
    assert [rate.hits for rate in immune] == [0, 1], "white in the first pixel reads as class 3"


def test_attack_success_rounds_like_the_images_it_is_given() -> None:
    clean = Samples((samples([0, 1]).images * 255).round().to(torch.uint8), torch.tensor([0, 1]), ("a", "b", "c", "d"))
    assert attack_success(Corner(), clean, KEY)[0].value == 1


class Shift:
    """An evasion that writes another class, for every second image of a batch."""

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, goal: Goal = Goal(), *, seed: int = 0) -> Tensor:
        moved = images.clone()
        moved[::2, 0, 0, 0] = ((labels[::2] + 1) % 4) / 10
        return moved


@pytest.mark.parametrize("batch_size", [2, 4, 100])
def test_robust_accuracy_counts_what_is_still_right(batch_size: int) -> None:
    rate = robust_accuracy(Corner(), samples([0, 1, 2, 3, 0, 1, 2, 3]), Shift(), seed=0, batch_size=batch_size)
    assert (rate.hits, rate.of) == (4, 8)


def test_robust_accuracy_of_a_linear_model_equals_the_exact_answer() -> None:
    """An L-inf step moves a linear margin by eps times the L1 norm of its gradient, and no attack can do more."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(2, 16, generator=generator))  # type: ignore[operator]
        model[1].bias.zero_()  # type: ignore[operator]
        images = 0.3 + 0.4 * torch.rand(200, 1, 4, 4, generator=generator)  # far from 0 and 1, so that nothing is clipped
        logits = model(images)
        labels = logits.argmax(1)
        margin = (logits[:, 0] - logits[:, 1]).abs()
        reach = 0.1 * float((model[1].weight[0] - model[1].weight[1]).abs().sum())  # type: ignore[index, operator]
    rate = robust_accuracy(model, Samples(images, labels), PGD(eps=0.1, steps=20), seed=0)
    assert 0 < rate.hits < 200
    assert rate.hits == int((margin > reach).sum())
