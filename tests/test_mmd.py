"""MMD equals its definition written out, is zero between equal samples, and tells distributions apart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mithridate.analysis.mmd import mmd2, permutation_test


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("kernels", [1, 2, 5])
def test_it_is_its_definition(kernels: int, unbiased: bool) -> None:
    x, y = draw(4, 3), 1 + draw(6, 3, seed=1)
    rows = [*x, *y]
    gaps = [float((a - b).square().sum()) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]
    scale = sum(gaps) / len(gaps)

    def kernel(a: Tensor, b: Tensor) -> float:
        gap = float((a - b).square().sum())
        return sum(math.exp(-gap / (scale * 2.0 ** (j - kernels // 2))) for j in range(kernels)) / kernels

    def within(rows: Tensor) -> float:
        pairs = [kernel(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j or not unbiased]
        return sum(pairs) / len(pairs)

    between = sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    assert float(mmd2(x, y, kernels=kernels, unbiased=unbiased)) == pytest.approx(within(x) + within(y) - 2 * between, abs=1e-12)


def test_equal_samples_are_not_apart_and_shifted_ones_are() -> None:
    x = draw(200, 8)
    assert float(mmd2(x, x)) == pytest.approx(0, abs=1e-12)
    alike, shifted, wider = (float(mmd2(x, other, unbiased=True)) for other in (draw(300, 8, seed=1), x + 1, 3 * draw(300, 8, seed=1)))
    assert abs(alike) < 0.005 < 0.05 < min(shifted, wider)
    assert float(mmd2(x, draw(200, 8, seed=1) + 1e6)) <= 2


def test_coinciding_rows_are_no_division_by_zero() -> None:
    assert float(mmd2(torch.ones(3, 2), torch.ones(4, 2))) == 0


def test_gradients_pull_the_samples_together() -> None:
    x, y = draw(50, 4), (draw(50, 4, seed=1) + 2).requires_grad_()
    apart = mmd2(x, y)
    (gradient,) = torch.autograd.grad(apart, y)
    assert float(mmd2(x, y.detach() - 5 * gradient)) < float(apart.detach())
    assert float(gradient.mean()) > 0


def test_bad_samples_are_named() -> None:
    with pytest.raises(ValueError, match=r"m, n > 1, got \(1, 2\) and \(3, 2\)"):
        mmd2(torch.ones(1, 2), torch.ones(3, 2))
    with pytest.raises(ValueError, match="kernels must be at least 1, got 0"):
        mmd2(torch.ones(2, 2), torch.ones(3, 2), kernels=0)


def test_the_permutation_test_is_every_split_by_hand() -> None:
    x, y = draw(5, 2), 0.5 + draw(7, 2, seed=1)
    observed, p_value = permutation_test(x, y, permutations=50, seed=3)
    assert observed == pytest.approx(float(mmd2(x, y, unbiased=True)))
    both, generator = torch.cat([x, y]), torch.Generator().manual_seed(3)
    orders = [torch.randperm(12, generator=generator) for _ in range(50)]
    found = [float(mmd2(both[order[:5]], both[order[5:]], unbiased=True)) for order in orders]
    assert p_value == (1 + sum(value >= observed for value in found)) / 51


def test_equal_distributions_are_called_different_as_rarely_as_the_p_value_says() -> None:
    p_values = [permutation_test(draw(30, 3, seed=2 * i), draw(20, 3, seed=2 * i + 1), permutations=39)[1] for i in range(200)]
    assert sum(p <= 0.05 for p in p_values) <= 20
    assert 0.4 < sum(p_values) / 200 < 0.6
    assert permutation_test(draw(30, 3), 1 + draw(20, 3, seed=1), permutations=39)[1] == 1 / 40
