"""Carlini & Wagner against linear models, whose nearest adversarial example is known exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from linear import SHAPES, problem, radii
from mithridate.nn.effort import metered
from mithridate.roles import Goal
from mithridate.threats.evasion.cw import CW
from mithridate.threats.searching.balls import lengths
from mithridate.threats.searching.losses import margin

QUICK: dict[str, Any] = {"steps": 100}


@pytest.mark.parametrize("classes", [2, 6])
@pytest.mark.parametrize(("shape", "count"), SHAPES)
def test_finds_nearly_the_smallest_change_of_a_linear_model(shape: Any, count: int, classes: int) -> None:
    model, images, labels = problem(shape, count, classes)
    found = CW(**QUICK).perturb(model, images, labels)
    assert bool((model(found).argmax(1) != labels).all())
    exact, reached = radii(model, images, labels, "l2"), lengths(found - images, "l2")
    assert bool((reached > 0.999 * exact).all()) and bool((reached < 1.25 * exact + 1e-4).all())
    assert float((reached / exact).mean()) < 1.02


def test_targets_of_each_image_are_reached_by_a_short_way() -> None:
    model, images, labels = problem((3, 12, 10), 64, alive=2)
    for goal in (Goal(1 - labels), Goal(1)):
        left = labels != goal.anchor(labels)
        found = CW(**QUICK).perturb(model, images, labels, goal)
        assert bool((model(found).argmax(1) == goal.anchor(labels)).all())
        assert torch.equal(found[~left], images[~left])
        best = radii(model, images, labels, "l2", goal.anchor(labels))
        assert bool((lengths(found - images, "l2") < 1.05 * best + 1e-3)[left].all())


def test_kappa_is_the_lead_that_is_asked_for() -> None:
    model, images, labels = problem((1, 8, 8), 16)
    plain, sure = (CW(**QUICK, kappa=kappa).perturb(model, images, labels) for kappa in (0.0, 0.5))
    assert float(margin(model(sure).detach(), labels).min()) > 0.5
    assert bool((lengths(sure - images, "l2") > lengths(plain - images, "l2")).all())


def test_each_image_has_its_own_constant() -> None:
    """An image in company of others gets what it gets alone."""
    model, images, labels = problem((1, 8, 8), 3)
    together = CW(**QUICK).perturb(model, images, labels)
    alone = torch.cat([CW(**QUICK).perturb(model, images[i : i + 1], labels[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-3)


def test_hopeless_descents_end_early() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    nn.init.zeros_(flat[1].weight)
    images, labels = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.full((4,), int(flat[1].bias.argmax()))
    counts = []
    for early in (True, False):
        with metered(flat) as effort:
            assert torch.equal(CW(searches=2, steps=50, early_exit=early).perturb(flat, images, labels), images)
        counts.append(effort.gradients)
    assert counts[1] == 4 * (2 * 50 + 2)  # and two gradients to see that no class is near
    assert counts[0] < 0.8 * counts[1]


def test_early_exit_costs_less_and_loses_little() -> None:
    model, images, labels = problem((3, 12, 10), 16)
    norms, counts = [], []
    for early in (True, False):
        with metered(model) as effort:
            found = CW(steps=100, early_exit=early).perturb(model, images, labels)
        norms.append(float(lengths(found - images, "l2").mean()))
        counts.append(effort.gradients)
    assert counts[0] < 0.9 * counts[1]
    assert norms[0] < 1.03 * norms[1]


def test_images_on_the_walls_and_beyond_the_cap() -> None:
    model, images, labels = problem((1, 8, 8), 16)
    images[:, :, :4] = (images[:, :, :4] > 0.5).float()
    labels = model(images).argmax(1)
    found = CW(**QUICK).perturb(model, images, labels)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    far = lengths(found - images, "l2")
    cap = float(far.median())
    capped = CW(**QUICK, eps=cap).perturb(model, images, labels)
    assert float(lengths(capped - images, "l2").max()) <= cap
    assert torch.equal(capped[far > cap], images[far > cap])


@pytest.mark.parametrize(
    ("field", "value"),
    [("searches", 0), ("steps", 0), ("lr", 0.0), ("c", -1.0), ("kappa", -0.1), ("eps", 0.0), ("eps", float("inf")), ("batch_size", 0)],
)
def test_wrong_settings_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} must .*got {value!r}"):
        CW(**{field: value})
