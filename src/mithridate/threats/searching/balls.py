"""Sizes and directions of perturbations in L-inf and L2."""

from __future__ import annotations

import torch
from torch import Tensor


def lengths(change: Tensor, norm: str) -> Tensor:
    """Norm (n,) of the change (n, c, h, w) of each image: `linf` or `l2`."""
    flat = change.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


def unit(direction: Tensor, norm: str) -> Tensor:
    """Directions (n, c, h, w) of length one; zero stays zero. Scaled by the largest entry first, so that tiny ones do not underflow."""
    scaled = direction / _divisor(lengths(direction, "linf"))
    return scaled if norm == "linf" else scaled / _divisor(lengths(scaled, norm))


def random_direction(like: Tensor, norm: str, generator: torch.Generator) -> Tensor:
    """Random directions of length one, of the shape, dtype and device of `like`: from a cube for `linf`, uniform for `l2`."""
    linf = norm == "linf"
    noise = torch.rand(like.shape, generator=generator) * 2 - 1 if linf else torch.randn(like.shape, generator=generator)
    return unit(noise.to(like), norm)


def _divisor(values: Tensor) -> Tensor:
    return values.clamp_min(torch.finfo(values.dtype).tiny)[:, None, None, None]
