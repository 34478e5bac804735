"""Principal components of a bank of features, and their covariance where they are few.

Source of the latter: Ledoit and Wolf 2004, Journal of Multivariate Analysis 88, lemma 3.4 and section 3.2.
"""

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


def shrunk_covariance(rows: Tensor) -> tuple[Tensor, float]:
    """Covariance (d, d) of rows (n, d) whose mean is zero, drawn towards a multiple of the identity, and how far, in [0, 1].

    S (1 - a) + a I trace(S) / d, with the a that is expected to come closest to the truth; so it can be inverted even where n < d.

    Raises:
        ValueError: no rows, or rows that are all zero.
    """
    if rows.ndim != 2 or not len(rows) or not bool(rows.any()):
        raise ValueError(f"rows must have shape (n, d) with n > 0 and not be all zero, got {tuple(rows.shape)}")
    count, width = rows.shape
    sample = rows.T @ rows / count
    scale = sample.trace() / width
    spread = sample.square().sum() - width * scale.square()  # squared distance from the multiple of the identity
    error = (rows.square().sum(1).square().mean() - sample.square().sum()) / count  # of the sample, squared, as expected
    share = float((error / spread).clamp(0, 1)) if float(spread) > 0 else 1.0
    return (1 - share) * sample + share * scale * torch.eye(width, dtype=rows.dtype, device=rows.device), share
