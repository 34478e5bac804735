"""Batched augmentation equals a plain per-image loop with the same draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mithridate.nn.augment import crop_and_flip


def draw(*shape: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if dtype == torch.uint8:
        return torch.randint(0, 256, shape, generator=generator, dtype=dtype)
    return torch.rand(shape, generator=generator, dtype=dtype)


def one_by_one(images: Tensor, generator: torch.Generator, pad: int, flip: bool) -> Tensor:
    count, channels, height, width = images.shape
    top, left = torch.randint(0, 2 * pad + 1, (2, count, 1), generator=generator)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5 if flip else torch.zeros(count, 1, dtype=torch.bool)
    made = torch.empty_like(images)
    for i in range(count):
        canvas = torch.zeros(channels, height + 2 * pad, width + 2 * pad, dtype=images.dtype)
        canvas[:, pad : pad + height, pad : pad + width] = images[i]
        crop = canvas[:, int(top[i]) : int(top[i]) + height, int(left[i]) : int(left[i]) + width]
        made[i] = crop.flip(-1) if mirrored[i] else crop
    return made


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(40, 3, 8, 8), (40, 1, 7, 12), (1, 3, 5, 5)])
@pytest.mark.parametrize(("pad", "flip"), [(0, True), (1, False), (4, True), (9, True)])
def test_equals_the_loop_over_images(dtype: torch.dtype, shape: tuple[int, ...], pad: int, flip: bool) -> None:
    images = draw(*shape, dtype=dtype)
    before = images.clone()
    made = crop_and_flip(images, torch.Generator().manual_seed(5), pad=pad, flip=flip)
    assert torch.equal(made, one_by_one(images, torch.Generator().manual_seed(5), pad, flip))
    assert made.dtype == dtype and made.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_memory_format_of_the_input_does_not_matter() -> None:
    images = draw(10, 3, 8, 8)
    made = [
        crop_and_flip(given, torch.Generator().manual_seed(0), pad=2, flip=True)
        for given in (images, images.contiguous(memory_format=torch.channels_last))
    ]
    assert torch.equal(*made)


def test_nothing_asked_nothing_changed() -> None:
    images, generator = draw(4, 3, 8, 8), torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert torch.equal(crop_and_flip(images, generator, pad=0, flip=False), images)
    assert torch.equal(generator.get_state(), state)


def test_shifts_are_uniform_and_half_are_mirrored() -> None:
    """A single white column tells the shift; an off-center pixel tells the mirror."""
    images = torch.zeros(9000, 1, 7, 7, dtype=torch.uint8)
    images[:, :, 3, 3] = 1
    where = crop_and_flip(images, torch.Generator().manual_seed(0), pad=1, flip=False).flatten(1).argmax(1)
    counts = torch.bincount(where, minlength=49).view(7, 7)
    assert int(counts[2:5, 2:5].sum()) == 9000
    assert 850 < int(counts[2:5, 2:5].min()) <= int(counts[2:5, 2:5].max()) < 1150
    images = torch.zeros(4000, 1, 1, 2, dtype=torch.uint8)
    images[..., 0] = 1
    mirrored = crop_and_flip(images, torch.Generator().manual_seed(0), pad=0, flip=True)[..., 1].sum()
    assert 1850 < int(mirrored) < 2150
