"""DeepFool against linear models, whose nearest adversarial example is known exactly, and against a box in the way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from linear import SHAPES, Linear, problem, radii
from mithridate.nn.effort import metered
from mithridate.roles import Goal
from mithridate.threats.evasion.deepfool import DeepFool
from mithridate.threats.searching.balls import lengths, unit


@pytest.mark.parametrize(("shape", "count"), SHAPES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_finds_the_nearest_boundary_of_a_linear_model(shape: Any, count: int, norm: Any) -> None:
    model, images, labels = problem(shape, count)
    found = DeepFool(norm=norm).perturb(model, images, labels)
    assert bool((model(found).argmax(1) != labels).all())
    ratio = lengths(found - images, norm) / radii(model, images, labels, norm)
    assert 0.999 < float(ratio.min()) <= float(ratio.max()) < 1.03


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_goes_to_the_target_of_each_image_and_to_no_other(norm: Any) -> None:
    model, images, labels = problem((3, 12, 10), 64, alive=2)
    for goal in (Goal(1 - labels), Goal(1)):
        left = labels != goal.anchor(labels)
        found = DeepFool(norm=norm).perturb(model, images, labels, goal)
        assert bool((model(found).argmax(1) == goal.anchor(labels)).all())
        assert torch.equal(found[~left], images[~left])
        best = radii(model, images, labels, norm, goal.anchor(labels))
        assert bool((lengths(found - images, norm) < 1.03 * best + 1e-4)[left].all())
    many, images, labels = problem((3, 12, 10), 64)
    targets = (labels + 1 + torch.arange(64) % 5) % 6
    assert torch.equal(many(DeepFool(norm=norm).perturb(many, images, labels, Goal(targets))).argmax(1), targets)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_walls_of_the_box_cost_no_steps(norm: Any) -> None:
    """Half of the pixels cannot move the way they should: the others must, and one linearization is enough."""
    model = Linear((1, 8, 8), 2)
    away = (model.weight[1] - model.weight[0]).detach().view(1, 1, 8, 8)
    images = torch.full((1, 1, 8, 8), 0.5)
    images[..., :4] = (away[..., :4] > 0).float()
    with torch.no_grad():
        model.bias[0] = float(((images - 0.5) * away).sum()) + 0.3
    found = DeepFool(norm=norm, steps=1).perturb(model, images, torch.tensor([0]))
    assert int(model(found).argmax(1)) == 1
    assert torch.equal(found[..., :4], images[..., :4])
    free = away[..., 4:].norm(p=1 if norm == "linf" else 2)
    assert float(lengths(found - images, norm)) == pytest.approx(0.3 / float(free), rel=0.03)


def test_only_the_likeliest_classes_are_looked_at() -> None:
    model, images, labels = problem((1, 8, 8), 16)
    with metered(model) as effort:
        few = DeepFool(candidates=2).perturb(model, images, labels)
    assert effort.gradients == 16  # one rival, one step
    assert torch.equal(model(few).argmax(1), model(images).topk(2).indices[:, 1])


def test_what_lies_further_than_eps_stays_as_it_was() -> None:
    model, images, labels = problem((3, 12, 10), 64)
    exact = radii(model, images, labels, "l2")
    cap = float(exact.median())
    found = DeepFool(eps=cap).perturb(model, images, labels)
    assert float(lengths(found - images, "l2").max()) <= cap
    moved = (found != images).flatten(1).any(1)
    assert bool(moved[exact < 0.97 * cap].all()) and not bool(moved[exact > cap].any())


def test_flat_models_and_curved_ones() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    nn.init.zeros_(flat[1].weight)
    images, labels = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.full((4,), int(flat[1].bias.argmax()))
    assert torch.equal(DeepFool(steps=3).perturb(flat, images, labels), images)

    class Ball(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            distance = (x - 0.5).square().sum((1, 2, 3))
            return torch.stack([torch.full_like(distance, 0.25), distance], 1)

    inside = 0.5 + 0.45 * unit(torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)), "l2")
    found = DeepFool().perturb(Ball(), inside, torch.zeros(8, dtype=torch.int64))
    first_step = (0.25 - 0.45**2) / (2 * 0.45)  # Newton's, which lands outside the ball: the way there is 1.06 times the shortest
    assert torch.allclose(lengths(found - inside, "l2"), torch.tensor(1.02 * first_step), rtol=1e-3)


@pytest.mark.parametrize(
    ("field", "value"), [("norm", "l1"), ("steps", 0), ("candidates", 1), ("overshoot", -0.1), ("eps", 0.0), ("batch_size", 0)]
)
def test_wrong_settings_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} must .*got {value!r}"):
        DeepFool(**{field: value})
