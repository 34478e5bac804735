"""What the Square attack proposes: random squares of changed pixels, always at the full radius.

Source: Andriushchenko et al., ECCV 2020, arXiv 1912.00049, sections 3.2 to 3.4 and 5.1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mithridate.threats.searching.balls import unit

HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which the squares cover half as much, section 5.1


def side_of_square(query: float, p_init: float, height: int, width: int) -> int:
    """Side in pixels of the query's square, which covers a share `p_init` of the image at first and then ever less."""
    share = p_init / 2 ** sum(query > mark for mark in HALVED_AT)
    return min(max(round(math.sqrt(share * height * width)), 1), height, width)


def linf_start(images: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Vertical stripes one pixel wide, each of a random sign in each channel."""
    n, c, _, w = images.shape
    return (images + eps * _signs((n, c, 1, w), images, generator)).clamp(0, 1)


def linf_square(images: Tensor, best: Tensor, eps: float, side: int, generator: torch.Generator) -> Tensor:
    """A square of one random sign a channel at a random place of each image; the opposite one where it is there already."""
    n, c, h, w = images.shape
    there = _window(images, side, generator)
    mask = torch.zeros(n, 1, h, w, dtype=torch.bool, device=images.device)
    mask[there] = True
    change = eps * _signs((n, c, 1, 1), images, generator)
    made = torch.where(mask, (images + change).clamp(0, 1), best)
    idle = (made == best).flatten(1).all(1)
    made[idle] = torch.where(mask[idle], (images[idle] - change[idle]).clamp(0, 1), best[idle])
    return made


def l2_start(images: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Tiles of bumps, five along the shorter side, of random signs and orientations."""
    n, c, h, w = images.shape
    side = max(min(h, w) // 5, 1)
    tall, wide = h // side, w // side
    shape = bump(side).to(images).repeat(tall, wide)
    turned = bump(side).T.to(images).repeat(tall, wide)
    sign, turn = _signs((n, c, tall, wide), images, generator), _signs((n, 1, tall, wide), images, generator)
    tiles = _grow(sign, side) * torch.where(_grow(turn, side) > 0, shape, turned)
    above, left = (h - tall * side) // 2, (w - wide * side) // 2
    delta = F.pad(tiles, (left, w - wide * side - left, above, h - tall * side - above))
    return (images + eps * unit(delta, "l2")).clamp(0, 1)


def l2_square(images: Tensor, best: Tensor, eps: float, side: int, generator: torch.Generator) -> Tensor:
    """The change in one window is moved to another one, where it is added to a bump; what the radius leaves unused goes there too."""
    n, c, h, w = images.shape
    side = min(max(side + 1 - side % 2, 3), h, w)
    here, there = _window(images, side, generator), _window(images, side, generator)
    delta = best - images
    unused = (eps**2 - delta.square().sum((1, 2, 3), keepdim=True)).clamp_min(0) / c
    mask = torch.zeros(n, 1, h, w, dtype=torch.bool, device=images.device)
    mask[here], mask[there] = True, True
    freed = (delta * mask).square().sum((2, 3), keepdim=True)
    channels = torch.arange(c, device=images.device)[None, :, None, None]
    here, there = (here[0], channels, *here[2:]), (there[0], channels, *there[2:])
    shape, turn = bump(side).to(images), _signs((n, 1, 1, 1), images, generator) > 0
    shape = torch.where(turn, shape, shape.T) * _signs((n, c, 1, 1), images, generator)
    window = _per_channel(shape + _per_channel(delta[here])) * (unused + freed).sqrt()
    delta[there] = 0
    delta[here] = window
    return (images + eps * unit(delta, "l2")).clamp(0, 1)


def bump(side: int) -> Tensor:
    """The square of the L2 attack (side, side), of length one: a positive and a negative pyramid, one above the other."""
    upper = side // 2
    shape = torch.cat([_pyramid(upper, side), -_pyramid(side - upper, side)])
    return shape.div(shape.norm())


def _pyramid(height: int, width: int) -> Tensor:
    """Rectangles (h, w) around the center, each a pixel larger to all sides; the k-th adds 1 / k^2. Of length one; equation 2."""
    out = torch.zeros(height, width)
    top, left = height // 2, width // 2
    for k in range(max(top, left) + 1):
        out[max(top - k, 0) : top + k + 1, max(left - k, 0) : left + k + 1] += 1 / (k + 1) ** 2
    return out.div(out.norm().clamp_min(1e-12))


def _window(images: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Index of a random square of each image: (n, 1, 1, 1), (1, 1, 1, 1), (n, 1, side, 1) and (n, 1, 1, side)."""
    n, _, h, w = images.shape
    top, left = (torch.randint(room - side + 1, (n,), generator=generator).to(images.device)[:, None] for room in (h, w))
    steps, rows = torch.arange(side, device=images.device), torch.arange(n, device=images.device)
    zero = torch.zeros(1, 1, 1, 1, dtype=torch.int64, device=images.device)
    return rows[:, None, None, None], zero, (top + steps)[:, None, :, None], (left + steps)[:, None, None, :]


def _signs(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    return (torch.randint(2, shape, generator=generator) * 2 - 1).to(like)


def _grow(tiles: Tensor, side: int) -> Tensor:
    return tiles.repeat_interleave(side, 2).repeat_interleave(side, 3)


def _per_channel(windows: Tensor) -> Tensor:
    """Windows (n, c, side, side), each channel of length one."""
    return windows / windows.square().sum((2, 3), keepdim=True).sqrt().clamp_min(1e-12)
