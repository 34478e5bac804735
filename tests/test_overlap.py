"""Suspect inputs that are clean images themselves are found by their pixels, however they are held, and nothing else is."""

from __future__ import annotations

import pytest
import torch

from mithridate.data import Samples, to_float
from mithridate.datasets.overlap import unseen


def some(count: int, seed: int = 0, names: bool = False) -> Samples:
    images = torch.randint(0, 256, (count, 3, 5, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Samples(images, torch.arange(count) % 3, ("a", "b", "c"), tuple(f"{i}.png" for i in range(count)) if names else ())


def mixed(clean: Samples, others: Samples, *, as_floats: bool = False) -> Samples:
    """Others with the clean images 4 and 2 at positions 1 and 3."""
    images = torch.cat([others.images[:1], clean.images[4:5], others.images[1:2], clean.images[2:3], others.images[2:]])
    return Samples(to_float(images) if as_floats else images, torch.zeros(len(images), dtype=torch.int64), ("?",))


@pytest.mark.parametrize("as_floats", [False, True])
def test_clean_images_among_the_inputs_are_left_out_and_told(as_floats: bool) -> None:
    clean, others = some(600), some(5, seed=1)
    rest, note = unseen(mixed(clean, others, as_floats=as_floats), clean)
    assert torch.equal(to_float(rest.images), to_float(others.images))
    assert rest.names == ("0", "2", "4", "5", "6"), "where they were"
    assert note.startswith("2 of 7 suspect inputs are among the clean images")


def test_names_stay() -> None:
    clean, inputs = some(10), some(10, names=True)
    rest, _ = unseen(Samples(inputs.images.roll(1, 0), inputs.labels, inputs.classes, inputs.names), clean[:4])
    assert rest.names == ("0.png", "5.png", "6.png", "7.png", "8.png", "9.png")


def test_inputs_of_their_own_are_untouched() -> None:
    inputs = some(8, seed=1)
    rest, note = unseen(inputs, some(20))
    assert rest is inputs
    assert not note


def test_the_smallest_change_makes_another_image() -> None:
    clean = some(3)
    inputs = to_float(clean.images)
    inputs[1, 2, 3, 1] += 1e-6
    rest, _ = unseen(Samples(inputs, clean.labels, clean.classes), clean)
    assert rest.names == ("1",)


def test_nothing_but_clean_images_is_refused() -> None:
    with pytest.raises(ValueError, match="not among the clean ones, got 5 that all are"):
        unseen(some(20)[3:8], some(20))
