"""Maximum mean discrepancy: how far two samples are apart as distributions, without assuming what they look like.

Source: Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, equations 3 (unbiased) and 5 (biased); the family of Gaussian
kernels around the mean squared distance follows Long et al., "Learning Transferable Features with Deep Adaptation Networks", ICML 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mithridate.analysis.density import square_distances

KERNELS = 5


def mmd2(x: Tensor, y: Tensor, *, kernels: int = KERNELS, unbiased: bool = False) -> Tensor:
    """Squared maximum mean discrepancy () under the mean of several Gaussian kernels; gradients flow to both samples.

    The kernels are exp(-|a - b|^2 / w) with w = s 2^j, j from -(kernels // 2) on, where s is the mean squared distance between
    different rows of both samples together, taken as a constant. The biased estimate lies in [0, 2]; the unbiased one may be
    slightly negative where the samples are alike.

    Args:
        x: (m, d) rows.
        y: (n, d) rows.
        kernels: how many widths, at least 1.
        unbiased: leave out each row's kernel with itself.

    Raises:
        ValueError: shapes that do not fit, fewer than two rows in either, or no kernel.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"x and y must have shapes (m, d) and (n, d) with m, n > 1, got {tuple(x.shape)} and {tuple(y.shape)}")
    if kernels < 1:
        raise ValueError(f"kernels must be at least 1, got {kernels}")
    return _between(_kernel(torch.cat([x, y]), kernels), len(x), unbiased=unbiased)


def permutation_test(x: Tensor, y: Tensor, *, permutations: int = 199, seed: int = 0) -> tuple[float, float]:
    """The unbiased squared discrepancy, and the chance in (0, 1] that equal distributions give one at least as large.

    The observed split counts as one of the permutations, so that the p-value is valid.
    Source: Phipson and Smyth, Statistical Applications in Genetics and Molecular Biology 2010.

    Args:
        x: (m, d) rows.
        y: (n, d) rows.
        permutations: random splits of all rows into m and n.
        seed: of the splits.

    Raises:
        ValueError: as for `mmd2`.
    """
    observed = float(mmd2(x.detach(), y.detach(), unbiased=True))
    kernel = _kernel(torch.cat([x, y]).detach(), KERNELS)
    kernel.fill_diagonal_(0)
    generator, total, m = torch.Generator().manual_seed(seed), len(kernel), len(x)
    orders = torch.stack([torch.randperm(total, generator=generator) for _ in range(permutations)])
    chosen = torch.zeros(permutations, total, dtype=kernel.dtype).scatter_(1, orders[:, :m], 1).to(kernel)
    sums = chosen @ kernel
    own, cross = (sums * chosen).sum(1), (sums * (1 - chosen)).sum(1)
    rest, n = kernel.sum() - own - 2 * cross, total - m
    found = own / (m * (m - 1)) + rest / (n * (n - 1)) - 2 * cross / (m * n)
    return observed, (1 + int((found >= observed - 1e-12).sum())) / (1 + permutations)


def _kernel(rows: Tensor, kernels: int) -> Tensor:
    """Mean (n, n) of the kernels between rows (n, d)."""
    squares, total = square_distances(rows, rows), len(rows)
    mean = (squares.detach().sum() / (total * (total - 1))).clamp_min(torch.finfo(squares.dtype).tiny)
    each = (-squares / (mean * 2.0 ** (kernels - 1 - kernels // 2))).exp()  # the widest; each square halves the width
    found = each
    for _ in range(kernels - 1):
        each = each.square()
        found = found + each
    return found / kernels


def _between(kernel: Tensor, first: int, *, unbiased: bool) -> Tensor:
    """Mean kernel within each sample, less twice that between them; the first rows are one sample and the rest the other."""
    return _within(kernel[:first, :first], unbiased) + _within(kernel[first:, first:], unbiased) - 2 * kernel[:first, first:].mean()


def _within(kernel: Tensor, unbiased: bool) -> Tensor:
    count = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / (count * (count - 1)) if unbiased else kernel.mean()
