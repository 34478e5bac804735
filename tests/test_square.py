"""The Square attack against linear models, whose worst point is known, and its squares against the paper's definitions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from linear import problem, radii
from mithridate.roles import Goal
from mithridate.threats.attack import attack
from mithridate.threats.evasion.square import Square
from mithridate.threats.searching.losses import Case
from mithridate.threats.searching.squares import bump, l2_square, l2_start, linf_square, linf_start, side_of_square

LARGE_ENOUGH = [  # random slopes have no squares in them: the larger the image, the more queries the last few percent take
    ("linf", (1, 8, 8), 1.05, 800),
    ("linf", (3, 12, 10), 2.5, 400),
    ("linf", (3, 32, 32), 5, 600),
    ("l2", (1, 8, 8), 2.5, 600),
    ("l2", (3, 12, 10), 5, 600),
    ("l2", (3, 32, 32), 8, 600),
]


@pytest.mark.parametrize(("shape", "count", "queries"), [((1, 8, 8), 1, 600), ((1, 8, 8), 64, 600), ((3, 6, 5), 64, 1000)])
@pytest.mark.parametrize("loss", ["margin", "ce"])
def test_linf_reaches_the_worst_point_of_the_ball(shape: tuple[int, int, int], count: int, queries: int, loss: Any) -> None:
    """Every pixel ends at the radius, with the sign of its own slope."""
    model, images, labels = problem(shape, count, classes=2)
    eps = float(radii(model, images, labels, "linf").min()) / 2
    square = Square(eps=eps, queries=queries, loss=loss, rescale=True)
    best, fooled = square._search(model, images, Case(labels, labels, Goal()), torch.Generator().manual_seed(0))
    slope = (model.weight[1 - labels] - model.weight[labels]).detach()
    share = ((best - images).flatten(1) * slope).sum(1) / (eps * slope.abs().sum(1))
    assert not bool(fooled.any())
    assert float(share.mean()) > 0.99 and float(share.min()) > 0.95


@pytest.mark.parametrize(("norm", "shape", "factor", "queries"), LARGE_ENOUGH)
@pytest.mark.parametrize("count", [1, 64])
@pytest.mark.parametrize("goal", ["untargeted", "one", "each"])
def test_fools_where_the_radius_allows_and_never_below(
    norm: Any, shape: tuple[int, int, int], factor: float, queries: int, count: int, goal: str
) -> None:
    model, images, labels = problem(shape, count, alive=2)
    aim = {"untargeted": Goal(), "one": Goal(int(1 - labels[0])), "each": Goal(1 - labels)}[goal]
    exact = radii(model, images, labels, norm)
    if goal == "one":
        exact = exact.where(labels == labels[0], 0)
    eps = factor * float(exact[exact > 0].median())
    found = attack(Square(norm=norm, eps=eps, queries=queries, rescale=True), model, images, labels, aim)
    size = found.linf if norm == "linf" else found.l2
    assert bool(found.fooled[exact <= eps / factor].all()), "half of the images at least"
    assert not bool(found.fooled[exact > eps].any())
    assert float(size.max()) <= eps + 1e-6
    assert 0 <= float(found.images.min()) <= float(found.images.max()) <= 1


@pytest.mark.parametrize("shape", [(3, 2, 2), (1, 3, 9), (3, 12, 10), (3, 32, 32)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_proposals_stay_in_the_ball_and_change_one_square(norm: str, shape: tuple[int, int, int]) -> None:
    images = torch.full((5, *shape), 0.5)
    start, propose = (linf_start, linf_square) if norm == "linf" else (l2_start, l2_square)
    generator = torch.Generator().manual_seed(0)
    best = start(images, 0.1, generator)
    for side in (1, min(shape[1:])):
        made = propose(images, best, 0.1, side, generator)
        assert torch.isfinite(made).all()
        size = (made - images).flatten(1).norm(dim=1, p=torch.inf if norm == "linf" else 2)
        torch.testing.assert_close(size, torch.full((5,), 0.1), atol=1e-6, rtol=0)
        if norm == "linf":
            assert bool((made.sub(images).abs() - 0.1).abs().max() < 1e-6), "every pixel is at the radius"
            assert int((made != best).any(1).flatten(1).sum(1).max()) <= side * side


def test_every_place_can_be_hit() -> None:
    """Corners and edges too: a square of one pixel lands everywhere in the long run."""
    images, generator = torch.full((2000, 1, 4, 5), 0.5), torch.Generator().manual_seed(0)
    hit = (linf_square(images, images, 0.1, 1, generator) != images).sum(0)[0]
    assert bool((hit > 50).all()) and int(hit.sum()) == 2000


def test_squares_shrink_on_the_published_schedule() -> None:
    shares = [side_of_square(q, 0.8, 320, 320) ** 2 / 320**2 for q in (0, 10, 11, 50, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)]
    expected = [0.8 / 2**k for k in (0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9)]
    assert shares == pytest.approx(expected, rel=0.1)
    assert side_of_square(9999, 0.8, 8, 8) == 1
    assert side_of_square(0, 1.0, 4, 30) == 4


def test_bumps_are_two_pyramids_of_opposite_sign() -> None:
    shape = bump(7)
    assert float(shape.norm()) == pytest.approx(1)
    assert bool((shape[:3] > 0).all()) and bool((shape[3:] < 0).all())
    assert float(shape[:3].norm()) == pytest.approx(float(shape[3:].norm()))
    inner = shape[:3] / shape[0, 0]  # the corner is in the outermost rectangle only: 1 / 4^2; the center in all of 1, 1/4, 1/9, 1/16
    assert float(inner[1, 3]) == pytest.approx((1 + 1 / 4 + 1 / 9 + 1 / 16) * 16)


def test_needs_no_gradient_and_counts_its_queries() -> None:
    class Rounded(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            assert not torch.is_grad_enabled()
            return (self.net(x) * 1000).round() / 1000

    model, images, labels = problem((1, 8, 8), 10)
    eps = 2 * float(radii(model, images, labels, "linf").max())
    found = attack(Square(eps=eps, queries=300), Rounded(model), images, labels)
    assert bool(found.fooled.all()) and found.gradients == 0
    idle = attack(Square(eps=1e-6, queries=7, restarts=2), model, images, labels)
    assert (idle.forwards, idle.gradients) == (10 + 2 * 7 * 10, 0)
    assert torch.equal(idle.images, images)


@pytest.mark.parametrize(
    ("field", "value"), [("eps", 0.0), ("norm", "l7"), ("loss", "mse"), ("queries", 0), ("restarts", 0), ("p_init", 0.0), ("batch_size", 0)]
)
def test_wrong_settings_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} must .*got {value!r}"):
        Square(**{field: value})
