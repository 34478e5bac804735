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
    both = torch.cat([x, y])
    squares = square_distances(both, both)
    total = len(both)
    mean = (squares.detach().sum() / (total * (total - 1))).clamp_min(torch.finfo(squares.dtype).tiny)
    kernel = (-squares / (mean * 2.0 ** (kernels - 1 - kernels // 2))).exp()  # the widest; each square halves the width
    value = _between(kernel, len(x), unbiased=unbiased)
    for _ in range(kernels - 1):
        kernel = kernel.square()
        value = value + _between(kernel, len(x), unbiased=unbiased)
    return value / kernels


def _between(kernel: Tensor, first: int, *, unbiased: bool) -> Tensor:
    """Mean kernel within each sample, less twice that between them; the first rows are one sample and the rest the other."""
    return _within(kernel[:first, :first], unbiased) + _within(kernel[first:, first:], unbiased) - 2 * kernel[:first, first:].mean()


def _within(kernel: Tensor, unbiased: bool) -> Tensor:
    count = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / (count * (count - 1)) if unbiased else kernel.mean()
