"""Patterns that are written down by their frequencies: the inverse cosine transform as two matrix products."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosines(size: int) -> Tensor:
    """The orthonormal DCT-II matrix (size, size), float64: row k samples the cosine of frequency k at the pixels' centers."""
    positions = (torch.arange(size, dtype=torch.float64) + 0.5) * math.pi / size
    basis = torch.cos(torch.arange(size, dtype=torch.float64)[:, None] * positions) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


def inverse_dct(spectrum: Tensor) -> Tensor:
    """Coefficients (..., h, w) of the orthonormal two-dimensional DCT-II -> the pixels (..., h, w), float64."""
    height, width = spectrum.shape[-2:]
    return cosines(height).T @ spectrum.double() @ cosines(width)
