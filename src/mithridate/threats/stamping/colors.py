"""Colors: luma and chroma, and the transfer of one picture's mean and covariance of colors onto others."""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: how much red, green and blue count for brightness
SOFTENING = 1e-3  # variance added to an image's own, so that noise on flat images is not blown up into color


def chroma_to_rgb(red: Tensor, blue: Tensor) -> Tensor:
    """What a change of the two chroma channels, Cr and Cb (h, w), does to an RGB image at constant luma -> (3, h, w).

    Source: ITU-R BT.601, with Cr = 0.713 (R - Y) and Cb = 0.564 (B - Y), which image libraries call YCrCb and papers often YUV.
    """
    red, blue = red / 0.713, blue / 0.564
    return torch.stack([red, -(LUMA[0] * red + LUMA[2] * blue) / LUMA[1], blue])


def moments(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (..., c, m) -> their mean (..., c, 1) and covariance (..., c, c), divided by m."""
    mean = pixels.mean(-1, keepdim=True)
    centered = pixels - mean
    return mean, centered @ centered.mT / pixels.shape[-1]


def transfer(images: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Each image (n, c, h, w) mapped linearly to a wanted mean (c, 1) and covariance (c, c) of its colors; not clipped.

    Of all linear maps that do so it is the one that moves the colors least. Images whose own variance is near `SOFTENING`
    or below keep less contrast than is wanted. For one channel it is a straight tone curve.

    Source: Pitie and Kokaram 2007, "The linear Monge-Kantorovitch linear colour mapping for example-based colour transfer".
    """
    pixels = images.flatten(2)
    own_mean, own = moments(pixels)
    root = _power(covariance.to(images), 0.5)
    own = own + SOFTENING * torch.eye(images.shape[1]).to(images)
    mapped = root @ _power(root @ own @ root, -0.5) @ root @ (pixels - own_mean) + mean.to(images)
    return mapped.reshape(images.shape)


def _power(matrices: Tensor, exponent: float) -> Tensor:
    """A power of symmetric positive semidefinite matrices (..., c, c)."""
    values, vectors = torch.linalg.eigh(matrices)
    power: Tensor = vectors * values.clamp_min(1e-12).pow(exponent)[..., None, :] @ vectors.mT
    return power
