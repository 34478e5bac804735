"""Principal components of a bank of features."""

from __future__ import annotations

import torch
from torch import Tensor


def principal(bank: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Mean (d,) and orthonormal axes (d, r) of the r <= `most` directions in which the rows of a bank (n, d) spread most.

    Directions without any spread are left out, but for the first. `(points - mean) @ axes` projects.

    Raises:
        ValueError: an empty bank, or fewer than one component.
    """
    if bank.ndim != 2 or not len(bank) or most < 1:
        raise ValueError(f"bank must have shape (n, d) with n > 0 and most be at least 1, got {tuple(bank.shape)} and {most}")
    mean = bank.double().mean(0)
    centered = bank.double() - mean
    wide = len(bank) < bank.shape[1]
    values, vectors = torch.linalg.eigh(centered @ centered.T if wide else centered.T @ centered)  # ascending
    keep = (values > 1e-10 * values[-1]).sum().clamp(min=1, max=most)
    values, vectors = values.flip(0)[:keep], vectors.flip(1)[:, :keep]
    axes = centered.T @ vectors / values.clamp_min(torch.finfo(values.dtype).tiny).sqrt() if wide else vectors
    return mean.to(bank.dtype), axes.to(bank.dtype)
