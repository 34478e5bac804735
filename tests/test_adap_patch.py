"""Adap-Patch: its patches pixel for pixel, and what it does to a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mithridate import judge
from mithridate.data import Samples
from mithridate.threats.dose import Dose
from mithridate.threats.poison import poison
from mithridate.threats.triggers.adap_patch import AdapPatch
from small_victims import digits, victim

SPOTS = {0: (-1, -1), 1: (-1, 1), 2: (1, -1), 3: (1, 1)}  # bottom-right, bottom-left, top-right, top-left
OPACITIES = (0.5, 0.2, 0.5, 0.3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, channels: int = 3, height: int = 16, width: int = 14) -> Tensor:
    return torch.rand(count, channels, height, width, generator=generator(9), dtype=torch.float64)


def quarter(sheet: Tensor, spot: int) -> Tensor:
    size, (down, across) = sheet.shape[-1] // 2, SPOTS[spot]
    rows, columns = (slice(size, None) if sign < 0 else slice(size) for sign in (down, across))
    return sheet[:, rows, columns]


def by_hand(image: Tensor, sheet: Tensor, spot: int, opacity: float, margin: int = 0) -> Tensor:
    """One patch on one image (c, h, w), pixel by pixel."""
    made, patch, size = image.clone(), quarter(sheet, spot), sheet.shape[-1] // 2
    down, across = SPOTS[spot]
    top = margin if down > 0 else image.shape[1] - margin - size
    left = margin if across > 0 else image.shape[2] - margin - size
    for y in range(size):
        for x in range(size):
            made[:, top + y, left + x] = (1 - opacity) * made[:, top + y, left + x] + opacity * patch[:, y, x]
    return made


def sheet_of(seed: int, channels: int, size: int) -> Tensor:
    return torch.rand(channels, 2 * size, 2 * size, generator=generator(seed)).double()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("margin", [0, 2])
def test_each_training_image_shows_one_patch_at_its_opacity(channels: int, margin: int) -> None:
    images, sheet = pictures(24, channels), sheet_of(4, channels, 5)
    made = AdapPatch(size=5, margin=margin, pattern="noise", pattern_seed=4).implant(images, generator())
    for image, dirty in zip(images, made, strict=True):
        candidates = [by_hand(image, sheet, spot, OPACITIES[spot], margin) for spot in SPOTS]
        assert sum(torch.allclose(dirty, each, rtol=0, atol=1e-7) for each in candidates) == 1
        assert int((dirty != image).any(0).sum()) == 25, "and nothing else"


def test_test_images_show_two_patches_whole() -> None:
    images, sheet = pictures(5), sheet_of(0, 3, 6)
    expected = torch.stack([by_hand(by_hand(each, sheet, 0, 1.0), sheet, 2, 1.0) for each in images])
    torch.testing.assert_close(AdapPatch(size=6, pattern="noise").stamp(images), expected, rtol=0, atol=1e-12)
    all_four = AdapPatch(test_opacities=(0.9, 0.8, 0.7, 0.6), size=3, pattern="noise").stamp(images)
    for spot, opacity in enumerate((0.9, 0.8, 0.7, 0.6)):
        images = torch.stack([by_hand(each, sheet_of(0, 3, 3), spot, opacity) for each in images])
    torch.testing.assert_close(all_four, images, rtol=0, atol=1e-7)


def test_patches_are_drawn_for_each_image_evenly_and_in_any_chunks() -> None:
    images, trigger = torch.full((2000, 1, 12, 12), 0.5), AdapPatch(size=2)
    whole, draws = trigger.implant(images, generator(5)), generator(5)
    assert torch.equal(whole, torch.cat([trigger.implant(part, draws) for part in images.split([1, 256, 0, 1700, 43])]))
    corners = [(whole != 0.5)[:, 0, y, x].sum() for y in (0, 11) for x in (0, 11)]
    assert sum(int(each) for each in corners) == 2000
    assert all(400 < int(each) < 600 for each in corners), "five standard deviations around 500"


def test_a_picture_is_cut_into_quarters(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "p.png")
    images, sheet = pictures(4), torch.from_numpy(picture).permute(2, 0, 1).double() / 255
    trigger = AdapPatch(size=4, pattern=str(tmp_path / "p.png"), test_opacities=(0, 0, 0, 1))
    torch.testing.assert_close(trigger.stamp(images), torch.stack([by_hand(each, sheet, 3, 1.0) for each in images]), rtol=0, atol=1e-7)


def test_covers_are_twice_as_many_carry_a_patch_and_keep_their_label() -> None:
    clean = Samples(pictures(600, 1, 8, 8).float(), torch.arange(600) % 4)
    dirty, truth = poison(clean, AdapPatch(size=2), Dose(target=1, rate=0.1), seed=3)
    assert truth.covers is not None
    assert (int(truth.poisoned.sum()), int(truth.covers.sum())) == (60, 120)
    changed = (dirty.images != clean.images).flatten(1).sum(1)
    assert set(changed[truth.covers | truth.poisoned].tolist()) == {4}
    assert torch.equal(dirty.labels[truth.covers], clean.labels[truth.covers])


def test_a_model_that_saw_weak_patches_obeys_strong_ones() -> None:
    model, key = victim("adap_patch:size=3", 0.05)
    _, fresh = digits()
    assert judge.accuracy(model, fresh).value > 0.95
    assert judge.attack_success(model, fresh, key)[0].value > 0.7


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"size": 0}, "size must be at least 1, got 0"), ({"margin": -1}, "margin must be at least 0, got -1"),
        ({"opacities": (0.5, 0.5)}, r"opacities must be four numbers in \(0, 1\], got \(0.5, 0.5\)"),
        ({"opacities": (0.5, 0.5, 0.5, 0.0)}, "opacities must be four .*0.0"),
        ({"test_opacities": (0.0, 0.0, 0.0, 0.0)}, "test_opacities must be four .* not all 0, got"),
        ({"test_opacities": (1.5, 0.0, 0.0, 0.0)}, "test_opacities must be four .*1.5"),
        ({"cover_ratio": -1.0}, "cover_ratio must be at least 0 and finite, got -1"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AdapPatch(**fields)  # type: ignore[arg-type]


def test_images_smaller_than_a_patch_are_refused() -> None:
    for verb in ("stamp", "implant"):
        with pytest.raises(ValueError, match=r"size \+ margin must be at most 5, got 8 \+ 0"):
            getattr(AdapPatch(), verb)(torch.zeros(1, 1, 5, 9), *([generator()] if verb == "implant" else []))
