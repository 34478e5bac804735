"""One step, where one step is known to be enough."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from linear import SHAPES, problem, radii
from mithridate.nn.effort import metered
from mithridate.roles import Goal
from mithridate.threats.evasion.fgsm import FGSM


@pytest.mark.parametrize(("shape", "count"), SHAPES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_two_classes_are_separated_exactly_at_the_radius(shape: Any, count: int, norm: Any) -> None:
    """Two classes: the gradient is constant, so that a step of the right length is the best there is."""
    model, images, labels = problem(shape, count, classes=2)
    exact = radii(model, images, labels, norm)
    for i in range(min(count, 8)):
        for scale, fooled in ((0.999, False), (1.001, True)):
            found = FGSM(norm=norm, eps=float(exact[i]) * scale).perturb(model, images[i : i + 1], labels[i : i + 1])
            assert bool(model(found).argmax(1) != labels[i]) is fooled


def test_every_pixel_moves_by_eps_or_to_the_wall() -> None:
    model, images, labels = problem((3, 12, 10), 64, classes=2)
    images[:, :, :3] = 0.98
    found = FGSM(eps=0.05, early_exit=False).perturb(model, images, labels)
    sign = torch.where(labels == 0, 1.0, -1.0)[:, None] * (model.weight[1] - model.weight[0]).detach().sign()
    assert torch.allclose(found, (images + 0.05 * sign.view_as(images)).clamp(0, 1), atol=1e-6)


def test_targets_are_approached() -> None:
    model, images, labels = problem((3, 12, 10), 64)
    targets = (labels + 1 + torch.arange(64) % 5) % 6
    for goal in (Goal(2), Goal(targets)):
        found = FGSM(eps=0.2).perturb(model, images, labels, goal)
        assert float((model(found).argmax(1) == goal.target).float().mean()) > 0.9


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_stay_inside_and_follow_the_seed(norm: Any) -> None:
    model, images, labels = problem((3, 12, 10), 64, classes=2)
    attack = FGSM(norm=norm, eps=0.1, random_start=True, early_exit=False)
    found = attack.perturb(model, images, labels, seed=3)
    assert torch.equal(found, attack.perturb(model, images, labels, seed=3))
    assert not torch.equal(found, attack.perturb(model, images, labels, seed=4))
    change = (found - images).flatten(1)
    length = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert float(length.max()) <= 0.1 + 1e-6
    assert float(length.min()) > 0.09


def test_costs_one_gradient_and_leaves_fooled_images_alone() -> None:
    model, images, labels = problem((1, 8, 8), 20)
    labels[10:] = (labels[10:] + 1) % 6
    with metered(model) as effort:
        found = FGSM(eps=0.1).perturb(model, images, labels)
    assert (effort.gradients, effort.forwards) == (20, 40)
    assert torch.equal(found[10:], images[10:]) and not bool((found[:10] == images[:10]).flatten(1).all(1).any())


@pytest.mark.parametrize(("field", "value"), [("eps", 0.0), ("norm", "l1"), ("step", -1.0), ("batch_size", 0)])
def test_wrong_settings_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} must .*got {value!r}"):
        FGSM(**{field: value})


def test_a_model_without_logits_is_refused() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return x, x

    with pytest.raises(ValueError, match="model must return a tensor of logits .* got tuple"):
        FGSM().perturb(Pair(), torch.rand(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64))
