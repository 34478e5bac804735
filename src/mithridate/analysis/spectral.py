"""Spectra of feature matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from mithridate.analysis.outliers_1d import split


def projections(features: Tensor, count: int = 1) -> Tensor:
    """Centered features (n, d) projected on their top `count` right singular vectors: (n, count), largest variance first.

    In double precision through the (d, d) or (n, n) Gram matrix, whichever is smaller. Directions beyond the rank give
    zeros; the sign of each direction is arbitrary.

    Raises:
        ValueError: not a matrix with at least one row, or values that are not finite.
    """
    if features.ndim != 2 or not len(features):
        raise ValueError(f"features must have shape (n, d) with n > 0, got {tuple(features.shape)}")
    if not bool(torch.isfinite(features).all()):
        raise ValueError("features must be finite, got NaN or infinity")
    centered = features.double() - features.double().mean(0)
    if len(centered) < centered.shape[1]:
        values, vectors = torch.linalg.eigh(centered @ centered.T)
        found = (vectors * values.clamp_min(0).sqrt()).flip(1)[:, :count]
    else:
        found = centered @ torch.linalg.eigh(centered.T @ centered).eigenvectors.flip(1)[:, :count]
    return torch.nn.functional.pad(found, (0, count - found.shape[1]))


def signature(features: Tensor) -> Tensor:
    """Squared projections (n,) of centered features (n, d) on their top right singular vector.

    Source: Tran, Li and Madry, NeurIPS 2018, algorithm 1. Raises as `projections` does.
    """
    return projections(features)[:, 0].square()


def second_population(features: Tensor, labels: Tensor) -> Tensor:
    """Which samples form a second population within their label, as bool (n,): an automatic cut that needs no poison rate.

    Each label's signed projections on its top singular vector are cut at their valley, if they have one (`split`); the
    squared ones would not do, because the two halves of an evenly mixed class lie equally far from the mean. The smaller
    population is the second one, unless both are of about the same size (a third to two thirds) and one is spread clearly
    more: then it is that one, for poisoned images come from many classes.

    Args:
        features: (n, d) finite, best those of the last hidden layer.
        labels: (n,) int64.

    Raises:
        ValueError: shapes that do not fit, or features that are not finite.
    """
    if labels.shape != features.shape[:1]:
        raise ValueError(f"labels must have shape ({len(features)},), got {tuple(labels.shape)}")
    flagged = torch.zeros(len(labels), dtype=torch.bool, device=features.device)
    for label in labels.unique().tolist():
        own = labels == label
        along = projections(features[own])[:, 0]
        along = along - along.median()
        along = (along / (1.4826 * along.abs().median())).asinh()  # so that a heavy tail is no second population
        cut = split(along) if bool(torch.isfinite(along).all()) else None
        if cut is not None:
            flagged[own] = _second(features[own], along > cut)
    return flagged


def _second(features: Tensor, side: Tensor) -> Tensor:
    share = float(side.float().mean())
    if not 1 / 3 < share < 2 / 3:
        return side if share < 0.5 else ~side
    radius = [float((part - part.mean(0)).norm(dim=1).median()) for part in (features[side], features[~side])]
    if max(radius) < 1.2 * min(radius):
        return side if share <= 0.5 else ~side
    return side if radius[0] > radius[1] else ~side
