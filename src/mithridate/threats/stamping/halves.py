"""Two images put together as halves, and chance that depends on an image alone."""

from __future__ import annotations

import torch
from torch import Tensor

from mithridate.data import to_uint8

PRIME = 2**31 - 1
DRAWS = 5  # numbers that `mix` needs of each image


def own_chance(images: Tensor, count: int) -> Tensor:
    """Numbers (n, count) in [0, 1), float64, that look random and depend on nothing but each image's own pixels, in steps of 1/255.

    They are linear hashes modulo a prime, so that an image draws the same in any batch.
    """
    pixels = to_uint8(images).flatten(1).long()
    weights = torch.randint(1, PRIME, (count, pixels.shape[1] + 1), generator=torch.Generator().manual_seed(0)).to(images.device)
    hashes = [((pixels * each[1:]).sum(1) + each[0]) % PRIME for each in weights]
    return torch.stack(hashes, 1).double() / PRIME


def mix(images: Tensor, others: Tensor, chance: Tensor, jitter: int) -> Tensor:
    """Images that show half of one picture and half of another, as new tensors.

    The seam runs across or down, at most `jitter` pixels from the middle; each part is a window of its picture of just that size,
    anywhere in it; which of the two comes first is chance.

    Args:
        images: (n, c, h, w).
        others: (n, c, h, w), of the same dtype.
        chance: (n, DRAWS) in [0, 1), float64: order, direction of the seam, its place, and where either window begins.
        jitter: pixels, at least 0.

    Raises:
        ValueError: the seam could leave the image.

    Source: Lin et al. 2020, CCS, the mixer of half images.
    """
    shorter = min(images.shape[2:])
    if 2 * jitter >= shorter:
        raise ValueError(f"jitter must be less than half of {shorter}, the images' shorter side, got {jitter}")
    swapped, across = (column[:, None, None, None] < 0.5 for column in chance[:, :2].T)
    first, second = torch.where(swapped, others, images), torch.where(swapped, images, others)
    return torch.where(across, _join(first, second, chance[:, 2:], jitter, 2), _join(first, second, chance[:, 2:], jitter, 3))


def _join(first: Tensor, second: Tensor, chance: Tensor, jitter: int, axis: int) -> Tensor:
    """A window of `first`, then one of `second`, along an axis."""
    side = first.shape[axis]
    cut = side // 2 - jitter + (chance[:, :1] * (2 * jitter + 1)).long()
    begin, resume = (chance[:, 1:2] * (side - cut + 1)).long(), (chance[:, 2:3] * (cut + 1)).long()
    at = torch.arange(side, device=first.device)
    lines = torch.where(at < cut, at + begin, side + at - cut + resume)
    lines = lines[:, None, :, None] if axis == 2 else lines[:, None, None, :]
    return torch.cat([first, second], axis).gather(axis, lines.expand_as(first))
