"""FAB against linear models, whose smallest perturbation is known, and its projection against a general solver."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.optimize import linprog, minimize

from linear import SHAPES, problem, radii
from mithridate.roles import Goal
from mithridate.threats.attack import attack
from mithridate.threats.evasion.fab import FAB
from mithridate.threats.searching.balls import lengths
from mithridate.threats.searching.hyperplane import onto_plane


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("shape", "count"), SHAPES)
def test_finds_the_smallest_perturbation(norm: Any, shape: tuple[int, int, int], count: int) -> None:
    model, images, labels = problem(shape, count)
    exact = radii(model, images, labels, norm)
    found = attack(FAB(norm=norm, n_target=5, steps=30), model, images, labels)
    ratio = (found.linf if norm == "linf" else found.l2) / exact
    assert bool(found.fooled.all())
    assert 0.999 < float(ratio.min()) <= float(ratio.max()) < 1.06, "the overshoot is 1.05"


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("goal", ["one", "each"])
def test_targets_are_reached_by_the_smallest_perturbation(norm: Any, goal: str) -> None:
    model, images, labels = problem((3, 12, 10), 64, alive=2)
    aim = Goal(1) if goal == "one" else Goal(1 - labels)
    found = attack(FAB(norm=norm, steps=30), model, images, labels, aim)
    size, away = found.linf if norm == "linf" else found.l2, aim.anchor(labels) != labels
    ratio = (size / radii(model, images, labels, norm, 1 - labels))[away]
    assert bool(found.fooled.all()) and bool((size[~away] == 0).all())
    assert 0.999 < float(ratio.min()) <= float(ratio.max()) < 1.06


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_radius_decides_who_is_fooled(norm: Any) -> None:
    model, images, labels = problem((3, 12, 10), 64)
    exact = radii(model, images, labels, norm)
    eps = float(exact.median())
    found, smallest = (attack(FAB(norm=norm, eps=e, n_target=5, steps=30), model, images, labels) for e in (eps, None))
    size = found.linf if norm == "linf" else found.l2
    assert bool(found.fooled[exact < eps / 1.06].all()) and not bool(found.fooled[exact > eps].any())
    assert float(size.max()) <= eps + 1e-6 and bool((size[~found.fooled] == 0).all())
    assert found.gradients < smallest.gradients


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_boundary_behind_the_walls_of_the_box(norm: Any) -> None:
    """Images on the walls: the nearest point of the boundary inside the box is what a general solver finds."""
    model, images, _ = problem((1, 3, 3), 6, classes=2)
    images = (images + 3 * (images - 0.5)).clamp(0, 1)
    images = torch.where(torch.rand(images.shape, generator=torch.Generator().manual_seed(4)) < 0.5, images.round(), images)
    labels = model(images).argmax(1)
    found = attack(FAB(norm=norm, steps=60), model, images, labels)
    assert int(found.fooled.sum()) >= 3
    for i in found.fooled.nonzero().flatten().tolist():
        slope = (model.weight[1 - labels[i]] - model.weight[labels[i]]).detach()
        logits = model(images[i : i + 1])[0].detach()
        best = _solve(images[i].flatten(), slope, float(logits[labels[i]] - logits[1 - labels[i]]), norm)
        assert float((found.linf if norm == "linf" else found.l2)[i]) < 1.25 * best + 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_projection_is_the_solvers(norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for trial in range(20):
        x, w = torch.rand(7, generator=generator), torch.randn(7, generator=generator) * 10.0 ** (trial % 5 - 2)
        w = torch.where(torch.rand(7, generator=generator) < 0.2, 0, w)
        toward = torch.where(w > 0, 1 - x, -x) if trial % 2 else torch.where(w > 0, -x, 1 - x)
        gap = float((w * toward).sum()) * float(torch.rand(1, generator=generator))
        moved = onto_plane(x[None, None, None], w[None, None, None], torch.tensor([gap]), norm)
        assert float((w * moved.flatten()).sum()) == pytest.approx(gap, rel=1e-4, abs=1e-6)
        assert float((x + moved).min()) + 1e-6 >= 0 and float((x + moved).max()) <= 1 + 1e-6
        assert float(lengths(moved, norm)) == pytest.approx(_solve(x, w, gap, norm), rel=1e-3, abs=1e-5)


def test_the_projection_goes_as_far_as_the_box_allows() -> None:
    x, w = torch.tensor([[[[0.2, 0.9, 0.5]]]]), torch.tensor([[[[1.0, -2.0, 0.0]]]])
    for norm in ("linf", "l2"):
        assert onto_plane(x, w, torch.tensor([1e3]), norm).flatten().tolist() == pytest.approx([0.8, -0.9, 0])
        assert onto_plane(x, w, torch.tensor([-1e3]), norm).flatten().tolist() == pytest.approx([-0.2, 0.1, 0])
        assert onto_plane(x, w * 0, torch.tensor([1.0]), norm).flatten().tolist() == [0, 0, 0]
        tiny = onto_plane(x, w * 1e-30, torch.tensor([1e-31]), norm)
        torch.testing.assert_close(tiny, onto_plane(x, w, torch.tensor([0.1]), norm))


def _solve(x: torch.Tensor, w: torch.Tensor, gap: float, norm: str) -> float:
    """The smallest change that gains `gap` inside the box, by a general solver in double precision."""
    low, high, slope = (-x).double().numpy(), (1 - x).double().numpy(), w.double().numpy()
    if norm == "linf":  # variables: the change, and a bound on its entries
        n = len(slope)
        bound = [[*((1 if j == i else 0) * s for j in range(n)), -1] for i in range(n) for s in (1, -1)]
        limits = [*zip(low, high, strict=True), (0, None)]
        return float(linprog([0] * n + [1], A_ub=bound, b_ub=[0] * 2 * n, A_eq=[[*slope, 0]], b_eq=[gap], bounds=limits).fun)
    scale = abs(slope).max()
    limit = {"type": "eq", "fun": lambda d: (d @ slope - gap) / scale, "jac": lambda d: slope / scale}
    start = (low + high) / 2
    solved = minimize(
        lambda d: d @ d, start, jac=lambda d: 2 * d, bounds=list(zip(low, high, strict=True)), constraints=[limit], options={"ftol": 1e-14}
    )
    return float(solved.fun**0.5)


def test_restarts_and_counts() -> None:
    model, images, labels = problem((1, 8, 8), 10)
    fab = FAB(n_target=2, steps=3)
    done = attack(fab, model, images, labels)
    assert done.gradients >= 10 * 2 * 4 and done.forwards == done.gradients + 10
    more = attack(FAB(n_target=2, steps=3, restarts=3), model, images, labels)
    assert more.gradients > done.gradients
    assert bool((more.linf[done.fooled] <= done.linf[done.fooled]).all())
    nowhere = attack(FAB(eps=1e-6, n_target=2, steps=3), model, images, labels)
    assert not bool(nowhere.fooled.any()) and torch.equal(nowhere.images, images)


@pytest.mark.parametrize(
    ("field", "value"),
    [("eps", 0.0), ("norm", "l7"), ("steps", 0), ("restarts", 0), ("n_target", 0), ("alpha_max", 1.5), ("eta", 0.5), ("beta", 1.0)],
)
def test_wrong_settings_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} must .*got {value!r}"):
        FAB(**{field: value})
