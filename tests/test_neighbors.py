"""Nearest neighbors equal scikit-learn's, far from the origin too; principal components equal its PCA."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from mithridate.analysis import neighbors
from mithridate.analysis.neighbors import Bank, nearest
from mithridate.analysis.projection import principal


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("dimension", [1, 3, 512])
def test_neighbors_equal_scikit_learn(offset: float, dimension: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bank, points = draw(90, dimension) + offset, draw(31, dimension, seed=1) + offset
    expected, rows = NearestNeighbors(n_neighbors=7, algorithm="brute").fit(bank.double().numpy()).kneighbors(points.double().numpy())
    distances, found = nearest(points, bank, 7)
    np.testing.assert_allclose(distances.numpy(), expected, rtol=1e-4, atol=1e-4 * max(1, offset) * (offset > 0))
    assert (found.numpy() == rows).mean() > 0.99
    monkeypatch.setattr(neighbors, "CELLS", 300)
    assert torch.equal(nearest(points, bank, 7)[0], distances)


def clusters(count: int, dimension: int, seed: int) -> Tensor:
    """Groups that are tight beside their distance, in few directions more than in others, some points twice."""
    centers = 30 * draw(5, dimension, seed=7)
    points = centers[torch.arange(count) % 5] + draw(count, dimension, seed=seed) * torch.logspace(0, -2, dimension)
    points[1::9] = points[0::9][: len(points[1::9])]
    return points


BANKS = {
    "clusters": (clusters(700, 40, 0), clusters(50, 40, 1)),
    "on the bank itself": (clusters(700, 40, 0), clusters(700, 40, 0)[:50]),
    "noise": (draw(700, 40), draw(50, 40, seed=1)),
    "tiny": (1e-12 * draw(700, 40), 1e-12 * draw(50, 40, seed=1)),
    "huge": (1e12 * draw(700, 40), 1e12 * draw(50, 40, seed=1)),
    "one far away": (torch.cat([draw(699, 40), torch.full((1, 40), 1e6)]), draw(50, 40, seed=1)),
    "all alike": (torch.ones(700, 40), draw(50, 40, seed=1)),
}


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("name", BANKS)
def test_none_that_is_nearer_is_left_out(name: str, short: bool, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the rough product rounds away, the distances found are the k least there are, in double precision."""
    monkeypatch.setattr(neighbors, "_precision", lambda *_: precision)
    monkeypatch.setattr(neighbors, "LONG", 10 if short else 10**6)
    monkeypatch.setattr(neighbors, "MANY", 100)
    bank, points = BANKS[name]
    prepared = Bank.of(bank)
    assert prepared.short.dtype == precision
    exact = torch.stack([(bank.double() - point).norm(dim=1) for point in points.double()])
    for k in (1, 5, 120, 700):
        distances, rows = nearest(points, prepared, k)
        expected = exact.sort(1).values[:, :k]
        torch.testing.assert_close(distances.double(), expected, rtol=1e-5, atol=1e-7 * float(bank.abs().max()))
        assert all(len(set(row)) == k for row in rows.tolist()), "no row twice"
        torch.testing.assert_close(exact.gather(1, rows), expected, rtol=1e-5, atol=1e-7 * float(bank.abs().max()))


def test_short_vectors_are_used_where_they_hold_the_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "LONG", 10)
    monkeypatch.setattr(neighbors, "MANY", 100)
    assert Bank.of(draw(700, 2) @ draw(2, 80, seed=1)).axes.shape[1] == 2
    assert Bank.of(draw(700, 80)).axes.shape[1] == 0, "noise has no main directions"


def test_neighbors_of_a_point_do_not_depend_on_the_others() -> None:
    bank, points = clusters(700, 40, 0), clusters(33, 40, 1)
    distances, rows = nearest(points, bank, 9)
    for i in (0, 17, 32):
        alone = nearest(points[i : i + 1], bank, 9)
        assert torch.equal(alone[0][0], distances[i]) and torch.equal(alone[1][0], rows[i])


def test_gradients_leave_the_distances_as_they_are() -> None:
    bank, points = clusters(700, 40, 0), clusters(33, 40, 1)
    assert torch.equal(nearest(points.clone().requires_grad_(), bank, 9)[0].detach(), nearest(points, bank, 9)[0])


def test_a_point_that_is_no_number_has_no_finite_distance() -> None:
    points = draw(3, 5)
    points[1, 2], points[2, 0] = torch.nan, torch.inf
    distances = nearest(points, draw(50, 5, seed=1), 4)[0]
    assert torch.isfinite(distances).all(1).tolist() == [True, False, False]


def test_no_point_of_the_bank_is_its_own_neighbor() -> None:
    bank = torch.cat([draw(20, 4), draw(20, 4)])  # every one has a twin
    distances, rows = nearest(bank, bank, 2, own=True)
    assert torch.equal(rows[:, 0], torch.arange(40).roll(20))
    assert float(distances[:, 0].abs().max()) == 0 and float(distances[:, 1].min()) > 0


def test_neighbors_come_from_the_members_only() -> None:
    bank, points, member = draw(40, 5), draw(2, 5, seed=1), torch.arange(40) % 2 == torch.tensor([[0], [1]])
    distances, rows = nearest(points, bank, 3, member=member)
    assert (rows % 2).tolist() == [[0] * 3, [1] * 3]
    torch.testing.assert_close(distances[0], nearest(points[:1], bank[::2], 3)[0][0])


def test_gradients_reach_the_points_and_stay_finite_on_top_of_a_neighbor() -> None:
    bank = draw(10, 3)
    points = torch.cat([bank[:1], draw(1, 3, seed=1)]).requires_grad_()
    distances, rows = nearest(points, bank, 2)
    distances.sum().backward()
    assert points.grad is not None and bool(torch.isfinite(points.grad).all())
    expected = sum((points[1] - bank[row]) / (points[1] - bank[row]).norm() for row in rows[1])
    torch.testing.assert_close(points.grad[1], expected.detach())


def test_too_few_neighbors_are_named() -> None:
    with pytest.raises(ValueError, match="bank must hold at least 3 neighbors of every point, got 2"):
        nearest(draw(3, 2), draw(3, 2), 3, own=True)
    with pytest.raises(ValueError, match="bank must hold at least 2 neighbors of every point, got 1"):
        nearest(draw(1, 2), draw(3, 2), 2, member=torch.tensor([[True, False, False]]))
    with pytest.raises(ValueError, match=r"shapes \(m, d\) and \(n, d\), got \(1, 2\) and \(3, 4\)"):
        nearest(draw(1, 2), draw(3, 4), 2)


@pytest.mark.parametrize("shape", [(50, 8), (8, 50)])
def test_components_equal_scikit_learns(shape: tuple[int, int]) -> None:
    bank, points = draw(*shape) * torch.linspace(1, 5, shape[1]) + 3, draw(6, shape[1], seed=1)
    mean, axes = principal(bank, 5)
    expected = PCA(5, svd_solver="full").fit(bank.numpy())
    torch.testing.assert_close(axes.T @ axes, torch.eye(5), rtol=0, atol=1e-5)
    np.testing.assert_allclose(((points - mean) @ axes).abs().numpy(), np.abs(expected.transform(points.numpy())), atol=1e-3)


def test_directions_without_spread_are_left_out() -> None:
    assert principal(draw(30, 2) @ draw(2, 9, seed=1), 5)[1].shape == (9, 2)
    assert principal(torch.ones(4, 9), 5)[1].shape == (9, 1)
    assert principal(draw(3, 100), 50)[1].shape == (100, 2)
    with pytest.raises(ValueError, match="most be at least 1"):
        principal(draw(3, 4), 0)
