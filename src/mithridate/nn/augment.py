"""Batched augmentation on the device: random crops and flips of a whole batch in one gather."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def crop_and_flip(images: Tensor, generator: torch.Generator, *, pad: int, flip: bool) -> Tensor:
    """Each image shifted by up to `pad` pixels (zeros come in) and mirrored with probability 1/2.

    Args:
        images: (n, c, h, w), any dtype.
        generator: a CPU generator; the draws do not depend on the device of the images.
        pad: largest shift in pixels, 0 for none.
        flip: whether to mirror.

    Returns:
        (n, c, h, w) of the same dtype, in channels-last memory.
    """
    if not pad and not flip:
        return images
    count, _, height, width = images.shape
    top, left = torch.randint(0, 2 * pad + 1, (2, count, 1), generator=generator)
    rows = top + torch.arange(height)
    columns = left + torch.arange(width)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded = F.pad(images, (pad,) * 4).permute(0, 2, 3, 1).contiguous()
    pixels = (rows[:, :, None] * padded.shape[2] + columns[:, None, :]).flatten(1).to(images.device)
    flat = padded.flatten(1, 2)
    taken = flat[torch.arange(count, device=images.device)[:, None], pixels]
    cropped: Tensor = taken.unflatten(1, (height, width)).permute(0, 3, 1, 2)
    return cropped
