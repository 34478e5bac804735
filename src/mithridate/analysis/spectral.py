"""Spectra of feature matrices."""

from __future__ import annotations

import torch
from torch import Tensor


def signature(features: Tensor) -> Tensor:
    """Squared projections (n,) of centered features (n, d) on their top right singular vector.

    In double precision through the (d, d) or (n, n) Gram matrix, whichever is smaller.
    Source: Tran, Li and Madry, NeurIPS 2018, algorithm 1.

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
        return values[-1].clamp_min(0) * vectors[:, -1].square()
    return (centered @ torch.linalg.eigh(centered.T @ centered).eigenvectors[:, -1]).square()
