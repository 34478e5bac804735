"""Gaussian kernel density in log space: never underflows, and one matrix product does all distances."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Kernels:
    """The samples of an estimate, prepared for many queries.

    Attributes:
        center: (d,) their mean.
        rows: (n, d) the samples less it, in double precision where the device has it, because |a|^2 + |b|^2 - 2ab cancels.
        squares: (n,) their squared lengths.
    """

    center: Tensor
    rows: Tensor
    squares: Tensor

    @classmethod
    def of(cls, bank: Tensor) -> Kernels:
        """Prepare samples (n, d), n > 0; gradients flow to them."""
        center = bank.detach().mean(0)
        rows = (bank - center).to(bank.dtype if bank.device.type == "mps" else torch.float64)
        return cls(center, rows, rows.square().sum(1))

    def square_distances(self, points: Tensor) -> Tensor:
        """Squared Euclidean distances (m, n) of points (m, d), in their dtype, by one matrix product."""
        wide = (points - self.center).to(self.rows.dtype)
        squares = torch.addmm(wide.square().sum(1, keepdim=True) + self.squares, wide, self.rows.T, alpha=-2)
        return squares.clamp_min(0).to(points.dtype)


def log_density(points: Tensor, bank: Tensor | Kernels, bandwidth: float | Tensor, member: Tensor | None = None) -> Tensor:
    """Log density (m,) of a Gaussian kernel estimate, log(1/n sum_i N(x; b_i, h^2 I)); gradients flow to the points.

    Equal to scikit-learn's `KernelDensity(kernel="gaussian").score_samples`.

    Args:
        points: (m, d).
        bank: (n, d) the samples the estimate is made of, prepared if it is asked often.
        bandwidth: h > 0, one for all or (m,) one per point.
        member: (m, n) bool, which samples each point is compared with; all of them when not given.

    Raises:
        ValueError: shapes that do not fit, a bandwidth that is not positive, or a point without any sample.
    """
    known = bank.rows if isinstance(bank, Kernels) else bank
    if points.ndim != 2 or known.ndim != 2 or points.shape[1] != known.shape[1] or not len(known):
        raise ValueError(f"points and bank must have shapes (m, d) and (n, d), got {tuple(points.shape)} and {tuple(known.shape)}")
    width = torch.as_tensor(bandwidth, dtype=points.dtype, device=points.device).expand(points.shape[0])
    seen = not torch.compiler.is_compiling()  # while a program is exported, no values are
    if seen and not bool((width > 0).all()):
        raise ValueError(f"bandwidth must be positive, got {float(width.min()):g}")
    if seen and member is not None and not bool(member.any(1).all()):
        raise ValueError("member must hold at least one True in every row, got a row without")
    kernels = bank if isinstance(bank, Kernels) else Kernels.of(bank)
    exponents = kernels.square_distances(points) / (-2 * width[:, None].square())
    if member is not None:
        exponents = exponents.masked_fill(~member, -torch.inf)
    count = len(known) if member is None else member.sum(1)
    return exponents.logsumexp(1) - _log_norm(width, points.shape[1]) - torch.as_tensor(count, device=points.device).log()


def leave_one_out(bank: Tensor, bandwidth: float, chunk: int = 1024) -> Tensor:
    """Log density (n,) of each sample of the bank (n, d) under the estimate made of all the others.

    Raises:
        ValueError: fewer than two samples.
    """
    if len(bank) < 2:
        raise ValueError(f"bank must hold at least 2 samples, got {len(bank)}")
    parts = [(_others(bank, rows) / (-2 * bandwidth**2)).logsumexp(1) for rows in torch.arange(len(bank), device=bank.device).split(chunk)]
    return torch.cat(parts) - _log_norm(torch.tensor(bandwidth, dtype=bank.dtype), bank.shape[1]).to(bank) - math.log(len(bank) - 1)


def best_bandwidth(bank: Tensor, candidates: int = 33) -> float:
    """The bandwidth whose leave-one-out log likelihood on the bank (n, d) is highest, to about 2 %.

    Leave-one-out cross-validation in closed form: the kernel matrix without its diagonal. Searched on a logarithmic grid
    from a tenth to ten times the median distance to the nearest neighbor, then once more between the best one's neighbors.
    Source: Habbema, Hermans and van den Broek, COMPSTAT 1974.

    Raises:
        ValueError: fewer than two samples, or samples that all coincide.
    """
    if len(bank) < 2:
        raise ValueError(f"bank must hold at least 2 samples, got {len(bank)}")
    squares = torch.cat([_others(bank, rows) for rows in torch.arange(len(bank), device=bank.device).split(1024)])
    nearest = squares.amin(1).sqrt()
    nearest = nearest[nearest > 1e-6 * bank.abs().amax()]
    if not len(nearest):
        raise ValueError(f"bank must hold samples that differ, got {len(bank)} that coincide")
    center, reach = float(nearest.median()), 10.0
    for _ in range(2):
        grid = [center * reach ** (2 * i / (candidates - 1) - 1) for i in range(candidates)]
        likelihood = [float((squares / (-2 * h**2)).logsumexp(1).mean()) - bank.shape[1] * math.log(h) for h in grid]
        center = grid[max(range(candidates), key=likelihood.__getitem__)]
        reach **= 2 / (candidates - 1)
    return center


def square_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances (m, n) between rows, in their dtype; as of `Kernels`."""
    return Kernels.of(b).square_distances(a)


def _others(bank: Tensor, rows: Tensor) -> Tensor:
    """Squared distances (len(rows), n) of some samples to all, infinite to themselves."""
    squares = square_distances(bank[rows], bank)
    squares[torch.arange(len(rows)), rows] = torch.inf
    return squares


def _log_norm(width: Tensor, dimension: int) -> Tensor:
    return dimension * (width.log() + 0.5 * math.log(2 * math.pi))
