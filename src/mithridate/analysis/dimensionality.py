"""Local intrinsic dimensionality: how fast the number of neighbors grows with the distance around a point."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mithridate.analysis.neighbors import Bank, nearest

NEAREST = 1e-6  # smallest ratio of two radii that counts: a neighbor on top of the point would make the dimension zero
FLATTEST = 1e-6  # smallest mean log ratio: neighbors that are all equally far would make it infinite


def local_dimension(distances: Tensor) -> Tensor:
    """Local intrinsic dimensionality (m,) from the distances (m, k) to the k nearest neighbors; finite, positive, differentiable.

    LID = -[1/k sum_i ln(r_i / r_k)]^-1, the maximum-likelihood estimate. Each r_i / r_k counts as 1e-6 at least, and the estimate
    as 1e6 at most; where all neighbors lie on the point itself it is lowest.

    Source: Amsaleg et al., KDD 2015, equation 8; Ma et al., ICLR 2018, equation 4.

    Args:
        distances: at least 0, ascending in every row, k >= 2.

    Raises:
        ValueError: another shape, or fewer than two neighbors.
    """
    if distances.ndim != 2 or distances.shape[1] < 2:
        raise ValueError(f"distances must have shape (m, k) with k >= 2, got {tuple(distances.shape)}")
    wide = distances if distances.device.type == "mps" else distances.double()  # logs of ratios near 1 lose digits
    ratios = wide / wide[:, -1:].clamp_min(torch.finfo(wide.dtype).tiny)
    flatness = -ratios.clamp_min(NEAREST).log().mean(1)
    return flatness.clamp_min(FLATTEST).reciprocal().to(distances.dtype)


def log_dimension(points: Tensor, bank: Tensor | Bank, k: int, *, member: Tensor | None = None, own: bool = False) -> Tensor:
    """Logarithm (m,) of the local dimension of points (m, d) among their k nearest neighbors in a bank (n, d).

    The estimate's error is a factor, of relative size 1 / sqrt(k), so that logarithms are what can be averaged.

    Args:
        points: floats; gradients flow to them.
        bank: floats, prepared if it is searched often.
        k: neighbors of each, at least 2.
        member: (m, n) bool, which samples each point may have as neighbors; all of them when not given.
        own: point i was made from sample i of the bank, or is it, and does not have it as a neighbor; m = n.

    Raises:
        ValueError: as for `nearest` and `local_dimension`.
    """
    return local_dimension(nearest(points, bank, k, member=member, own=own)[0]).log()


def log_dimensions(
    points: Sequence[Tensor], banks: Sequence[Tensor | Bank], k: int, *, member: Tensor | None = None, own: bool = False
) -> Tensor:
    """The same (m, layers) in several layers, of points (m, d) among a bank (n, d) of each; arguments and errors as above."""
    return torch.stack([log_dimension(each, bank, k, member=member, own=own) for each, bank in zip(points, banks, strict=True)], 1)
