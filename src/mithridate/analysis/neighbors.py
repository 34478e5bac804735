"""Nearest neighbors in a bank of features: candidates by one matrix product, then their distances exactly."""

from __future__ import annotations

import torch
from torch import Tensor

SPARE = 8  # further candidates, so that rounding in the product does not lose a neighbor
CELLS = 2**24  # distances held at once


def nearest(points: Tensor, bank: Tensor, k: int, *, member: Tensor | None = None, own: bool = False) -> tuple[Tensor, Tensor]:
    """Distances (m, k), ascending, and rows (m, k) of the bank, of each point's k nearest; gradients flow to the points.

    Args:
        points: (m, d) floats.
        bank: (n, d) floats.
        k: neighbors of each.
        member: (m, n) bool, which samples each point may have as neighbors; all of them when not given.
        own: the points are the bank itself, row for row, and none is its own neighbor.

    Raises:
        ValueError: shapes that do not fit, or a point with fewer than k possible neighbors.
    """
    if points.ndim != 2 or bank.ndim != 2 or points.shape[1] != bank.shape[1]:
        raise ValueError(f"points and bank must have shapes (m, d) and (n, d), got {tuple(points.shape)} and {tuple(bank.shape)}")
    least = len(bank) if member is None else int(member.sum(1).min())
    if least - own < k:
        raise ValueError(f"bank must hold at least {k} neighbors of every point, got {least - own}")
    center = bank.mean(0)  # far from the origin, the product would lose the digits that differ
    bank, points = bank - center, points - center
    size = max(1, CELLS // max(len(bank), (k + SPARE) * bank.shape[1]))
    parts = [_nearest(points, bank, k, rows, member, own) for rows in torch.arange(len(points), device=points.device).split(size)]
    return torch.cat([distances for distances, _ in parts]), torch.cat([rows for _, rows in parts])


def safe_root(squares: Tensor) -> Tensor:
    """The square root, with a gradient of zero instead of infinity at zero."""
    positive = squares > 0
    return torch.where(positive, squares.where(positive, torch.ones_like(squares)).sqrt(), 0.0)


def _nearest(points: Tensor, bank: Tensor, k: int, part: Tensor, member: Tensor | None, own: bool) -> tuple[Tensor, Tensor]:
    """As `nearest`, for some of the points."""
    closeness = torch.addmm(bank.square().sum(1), points[part].detach(), bank.T, alpha=-2)
    if member is not None:
        closeness.masked_fill_(~member[part], torch.inf)
    if own:
        closeness[torch.arange(len(part), device=part.device), part] = torch.inf
    allowed = int(torch.isfinite(closeness).sum(1).min())
    rows = closeness.topk(min(k + SPARE, allowed), dim=1, largest=False).indices
    squares, order = (points[part, None] - bank[rows]).square().sum(2).topk(k, dim=1, largest=False)
    return safe_root(squares), rows.gather(1, order)
