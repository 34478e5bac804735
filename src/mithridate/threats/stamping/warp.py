"""Smooth random warps of images: the sampling grids of WaNet, made from a generator and applied to whole batches.

Grids hold sampling positions as (x, y) in [-1, 1], where -1 and 1 are the centers of the border pixels (`align_corners=True`).

Source: Nguyen and Tran 2021, arXiv 2102.10369, section 3 (warping field, noise mode), and its released code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def field(grid_size: int, strength: float, height: int, width: int, generator: torch.Generator, rescale: float = 1.0) -> Tensor:
    """One smooth warp as a sampling grid (1, h, w, 2), float32 in [-1, 1], on the CPU.

    Offsets are uniform on a coarse grid of control points, scaled to a mean size of 1 and interpolated bicubically, so an average
    control point moves by about `strength` / 2 pixels, along x and along y alike.

    Args:
        grid_size: control points along each side, at least 1.
        strength: size of the offsets, in half pixels; 0 is the identity.
        height: of the images, in pixels.
        width: of the images, in pixels.
        generator: on the CPU; draws the offsets.
        rescale: multiplies all positions; below 1 it zooms in.
    """
    offsets = torch.rand(1, 2, grid_size, grid_size, generator=generator) * 2 - 1
    offsets = F.interpolate(offsets / offsets.abs().mean(), size=(height, width), mode="bicubic", align_corners=True)
    moved = _identity(height, width) + strength * offsets.permute(0, 2, 3, 1) / torch.tensor([width, height])
    return (moved * rescale).clamp(-1, 1)


def jitter(grid: Tensor, count: int, generator: torch.Generator, scale: float = 1.0) -> Tensor:
    """WaNet's noise mode: `count` copies of a grid (1, h, w, 2), each with its own noise on every position -> (count, h, w, 2).

    Args:
        grid: as `field` gives it.
        count: how many, 0 or more.
        generator: on the CPU; draws the noise.
        scale: largest shift along each axis, in half pixels; 1 as published.
    """
    height, width = grid.shape[1:3]
    noise = torch.rand(count, height, width, 2, generator=generator) * 2 - 1
    return (grid + (scale * noise / torch.tensor([width, height])).to(grid)).clamp(-1, 1)


def warp(images: Tensor, grid: Tensor) -> Tensor:
    """Float images (n, c, h, w) sampled bilinearly at a grid (1, h, w, 2), the same for all, or (n, h, w, 2) -> (n, c, h, w).

    Sampled at float32 or finer; the result has the images' dtype and range.
    """
    if not images.numel():
        return images.clone()
    exact = images.to(torch.promote_types(images.dtype, torch.float32))
    shared = len(grid) == 1  # then the images are channels of one image, whose weights are computed once
    stacked = exact.flatten(0, 1)[None] if shared else exact
    warped = F.grid_sample(stacked, grid.to(exact), mode="bilinear", padding_mode="border", align_corners=True)
    return warped.reshape(images.shape).to(images.dtype)


def _identity(height: int, width: int) -> Tensor:
    """The grid (1, h, w, 2) that samples every pixel at its own place."""
    rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)[None]
