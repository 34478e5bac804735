"""Nearest neighbors in a bank of features, exactly: candidates by one rough product, then the distances that matter in full.

The product is of short vectors, a few principal components and the length of the rest, which no two points are further apart in
than they are; and in half precision where the processor is fast in it. All that rounding can have done is bounded, so that the
rows left out are known to be further away than the neighbors found. Where that is not sure, more rows are looked at.

Source: filter and refine with a contractive map, Faloutsos et al., SIGMOD 1994; Seidl and Kriegel, SIGMOD 1998.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from mithridate.analysis.projection import principal

SPARE = 8  # further candidates where no values may be looked at, as rounding could lose a neighbor
CELLS = 2**23  # rough distances held at once
PAIRS = 2**18  # numbers of full vectors held at once
GROUP = 32  # most rows that stand behind one minimum
SAMPLE = 1024  # rows that principal components are made of
LONG = 128  # dimensions from which on components are worth their making, in banks of more than `MANY` rows
MANY = 4096
SPREAD = 0.97  # share of the variance that they should hold
EXACT = 1e-5  # relative error of a distance in full precision, generously


@dataclass(frozen=True, eq=False)
class Bank:
    """A bank of features, prepared for many searches.

    Attributes:
        rows: (n, d) the features.
        center: (d,) their mean; far from the origin, products would lose the digits that differ.
        axes: (d, r) orthonormal directions of a short vector, of no columns where it is the whole one.
        short: (n', r + 7) or (n', d + 6) short vectors in low precision, and their squared lengths; n' is n, rounded up.
        loss: largest share of a short vector's length that its rounding moved it.
    """

    rows: Tensor
    center: Tensor
    axes: Tensor
    short: Tensor
    loss: float

    @classmethod
    def of(cls, rows: Tensor) -> Bank:
        """Prepare floats (n, d), n > 0."""
        rows = rows.detach()
        center = rows.mean(0)
        axes = _axes(rows - center) if min(rows.shape[0] / MANY, rows.shape[1] / LONG) > 1 else rows.new_zeros(rows.shape[1], 0)
        short = torch.cat([_shortened(part - center, axes) for part in rows.split(max(1, PAIRS // rows.shape[1]))])
        low = short.to(_precision(rows.device, rows.dtype))
        lost, length = (short - low).norm(dim=1), short.norm(dim=1).clamp_min(torch.finfo(short.dtype).tiny)
        ones, squares = low.new_ones(len(low), 3), _parts(low, _slack(low))
        found = pad(torch.cat([low, ones, squares], 1), (0, 0, 0, -len(rows) % GROUP))
        found[len(rows) :, -1] = torch.inf
        return cls(rows, center, axes, found, float((lost / length).max()))

    def rough(self, points: Tensor) -> Tensor:
        """Squared distances (m, n') of short vectors, never below zero; infinite beyond the last row of the bank."""
        low = _shortened(points - self.center, self.axes).to(self.short.dtype)
        return torch.cat([-2 * low, _parts(low, _slack(low)), low.new_ones(len(low), 3)], 1) @ self.short.T

    def at_most(self, reach: Tensor, points: Tensor) -> Tensor:
        """What rough distances (m, 1) may be where true ones are within reach (m, 1): no rounding can have done more."""
        centered = points - self.center
        short = _shortened(centered, self.axes)
        low = short.to(self.short.dtype)
        slack, length = _slack(low), low.float().norm(dim=1, keepdim=True)
        moved = (short - low).norm(dim=1, keepdim=True) + self.loss * length + EXACT * centered.norm(dim=1, keepdim=True)
        squares: Tensor = ((1 + self.loss + EXACT) * reach + moved).square() * (1 + 4 * slack) + 6 * slack * length.square()
        return squares / (1 - torch.finfo(low.dtype).eps)


def side_by_side(banks: Tensor, widths: Sequence[int]) -> tuple[Tensor | Bank, ...]:
    """Banks (n, d) that are columns of one tensor, so many each; prepared but while a program is exported."""
    return one_by_one(part.contiguous() for part in banks.split(list(widths), 1))


def one_by_one(banks: Iterable[Tensor]) -> tuple[Tensor | Bank, ...]:
    """Banks (n, d), prepared but while a program is exported."""
    return tuple(each if torch.compiler.is_compiling() else Bank.of(each) for each in banks)


def nearest(points: Tensor, bank: Tensor | Bank, k: int, *, member: Tensor | None = None, own: bool = False) -> tuple[Tensor, Tensor]:
    """Distances (m, k), ascending, and rows (m, k) of the bank, of each point's k nearest; gradients flow to the points.

    Args:
        points: (m, d) floats.
        bank: (n, d) floats, prepared if it is searched often.
        k: neighbors of each.
        member: (m, n) bool, which samples each point may have as neighbors; all of them when not given.
        own: the points are the bank itself, row for row, and none is its own neighbor.

    Raises:
        ValueError: shapes that do not fit, or a point with fewer than k possible neighbors.
    """
    known = bank.rows if isinstance(bank, Bank) else bank
    if points.ndim != 2 or known.ndim != 2 or points.shape[1] != known.shape[1]:
        raise ValueError(f"points and bank must have shapes (m, d) and (n, d), got {tuple(points.shape)} and {tuple(known.shape)}")
    exporting = torch.compiler.is_compiling()  # while a program is exported, no values are
    least = len(known) if member is None or exporting else int(member.sum(1).min())
    if least - own < k:
        raise ValueError(f"bank must hold at least {k} neighbors of every point, got {least - own}")
    if exporting:
        distances = _apart(points, known, rows := _exportable(points, known, member, min(k + SPARE, least)))
        distances, order = distances.topk(k, dim=1, largest=False)
        return distances, rows.gather(1, order)
    distances, rows = _search(points.detach(), bank if isinstance(bank, Bank) else Bank.of(bank), k, member, own)
    return (_apart(points, known, rows) if points.requires_grad and torch.is_grad_enabled() else distances), rows


def _search(points: Tensor, bank: Bank, k: int, member: Tensor | None, own: bool) -> tuple[Tensor, Tensor]:
    """Distances (m, k) and rows (m, k) as `nearest` finds them."""
    found = [(points.new_empty(0, k), points.new_empty(0, k, dtype=torch.int64))]
    for part in torch.arange(len(points), device=points.device).split(max(1, CELLS // len(bank.short))):
        rough = bank.rough(points[part])
        if member is not None:
            rough[:, : len(bank.rows)].masked_fill_(~member[part], torch.inf)
        if own:
            rough[torch.arange(len(part), device=part.device), part] = torch.inf
        found.append(_refined(points[part], bank, rough, k))
    distances, rows = zip(*found, strict=True)
    return torch.cat(distances), torch.cat(rows)


def _refined(points: Tensor, bank: Bank, rough: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest by true distance, given rough ones (m, n'): no row can be nearer than the farthest of k and look farther."""
    grouped = rough.unflatten(1, (min(GROUP, 2 ** int(math.log2(rough.shape[1] / k) / 2)), -1))
    least = _least(grouped)
    some = _closest(grouped, least, k).clamp_max(len(bank.rows) - 1)  # where all are infinite, any
    each = torch.arange(len(points), device=points.device)
    reach = _pairs(points, bank.rows, each.repeat_interleave(k), some.flatten()).view(-1, k).amax(1, keepdim=True)
    limit = bank.at_most(reach, points)
    which, groups = (least <= limit).nonzero(as_tuple=True)
    inside = grouped[which, :, groups]
    pair, place = ((inside <= limit[which]) & inside.isfinite()).nonzero(as_tuple=True)
    first, rows = which[pair], place * grouped.shape[2] + groups[pair]
    return _ranked(first, rows, _pairs(points, bank.rows, first, rows), some)


def _least(grouped: Tensor) -> Tensor:
    """Minima (m, g) of values (m, size, g) that are not negative."""
    if grouped.dtype == torch.bfloat16:  # as integers they have the same order, and are compared far faster
        return grouped.view(torch.int16).amin(1).view(torch.bfloat16)
    return grouped.amin(1)


def _closest(grouped: Tensor, least: Tensor, k: int) -> Tensor:
    """Places (m, k) of the k least of values (m, size, g), of whose groups the minima (m, g) are given."""
    groups = least.topk(k, dim=1, largest=False, sorted=False).indices  # hold them all
    inside = grouped.gather(2, groups[:, None].expand(-1, grouped.shape[1], -1)).flatten(1)
    best = inside.topk(k, dim=1, largest=False, sorted=False).indices
    return best // k * grouped.shape[2] + groups.gather(1, best % k)


def _ranked(first: Tensor, rows: Tensor, distances: Tensor, some: Tensor) -> tuple[Tensor, Tensor]:
    """The k nearest, (m, k), of pairs that are ordered by their first; if these are not k, all of `some` (m, k), at no known distance."""
    (m, k), counts = some.shape, first.bincount(minlength=len(some))
    place = torch.arange(len(first), device=first.device) - (counts.cumsum(0) - counts)[first]
    table, known = distances.new_full((m, max(k, int(counts.max()))), torch.inf), rows.new_zeros(m, max(k, int(counts.max())))
    table[first, place], known[first, place] = distances, rows
    found, order = table.sort(dim=1, stable=True)  # so that equal ones come in the same order, whatever the other points are
    return found[:, :k], known.gather(1, order[:, :k])


def _pairs(points: Tensor, bank: Tensor, first: Tensor, rows: Tensor) -> Tensor:
    """True distances (p,) of pairs of points (m, d) and rows of the bank (n, d), as many at once as caches hold."""
    halves = zip(*(each.split(max(1, PAIRS // bank.shape[1])) for each in (first, rows)), strict=True)
    parts = [torch.linalg.vector_norm(bank.index_select(0, j).sub_(points.index_select(0, i)), dim=1) for i, j in halves]
    return torch.cat([points[:0, 0], *parts])


def _apart(points: Tensor, bank: Tensor, rows: Tensor) -> Tensor:
    """True distances (m, c) of points (m, d) and rows (m, c) of the bank; gradients, zero where they are zero, flow to the points."""
    apart: Tensor = torch.linalg.vector_norm(bank[rows] - points[:, None], dim=2)
    return apart


def _exportable(points: Tensor, bank: Tensor, member: Tensor | None, count: int) -> Tensor:
    """Rows (m, count) of candidates by one product in full precision, without a look at any value."""
    center = bank.mean(0)
    bank, points = bank - center, points.detach() - center
    closeness = torch.addmm(bank.square().sum(1), points, bank.T, alpha=-2)
    return (closeness if member is None else closeness.masked_fill(~member, torch.inf)).topk(count, dim=1, largest=False).indices


def _axes(centered: Tensor) -> Tensor:
    """The principal components (d, r) that hold most of the variance, or none (d, 0) where it takes many."""
    some = centered[:: -(-len(centered) // SAMPLE)]
    axes = principal(some, some.shape[1] // 2)[1]
    held = (some @ axes).square().sum(0).cumsum(0) / some.square().sum()
    needed = int((held < SPREAD).sum()) + 1
    return axes[:, : -(-(needed + 7) // 32) * 32 - 7] if needed < some.shape[1] // 2 else axes[:, :0]  # products like multiples of 32


def _shortened(centered: Tensor, axes: Tensor) -> Tensor:
    """Short vectors (m, r + 1) of centered ones (m, d), or these themselves; their distances are at most the true ones."""
    if not axes.shape[1]:
        return centered
    short = centered @ axes
    return torch.cat([short, torch.addmm(centered, short, axes.T, alpha=-1).norm(dim=1, keepdim=True)], 1)


def _parts(low: Tensor, slack: float) -> Tensor:
    """Squared lengths (m, 3) as sums of three numbers of low precision, raised so that rough distances stay above zero."""
    rest, parts = low.float().square().sum(1) * (1 + slack), []
    for _ in range(3):
        parts.append(rest.to(low.dtype))
        rest = rest - parts[-1]
    return torch.stack(parts, 1)


def _slack(low: Tensor) -> float:
    """What rounding in a product moves a rough distance by at most, as a share of both squared lengths."""
    sums = (low.shape[1] + 6) * 2.0**-22
    return sums if low.device.type == "cpu" else max(sums, 2.0**-9)  # other devices may multiply with fewer digits


@functools.cache
def _precision(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """What products are fastest in: half precision only on processors that have it."""
    capable = device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.bfloat16 if capable else dtype
