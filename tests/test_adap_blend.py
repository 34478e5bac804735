"""Adap-Blend: its pieces pixel for pixel, and what it does to a model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mithridate import judge
from mithridate.data import Samples
from mithridate.threats.dose import Dose
from mithridate.threats.poison import CHUNK, poison
from mithridate.threats.triggers.adap_blend import AdapBlend
from mithridate.threats.triggers.blend import Blend
from small_victims import digits, victim


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, channels: int = 3, height: int = 13, width: int = 10) -> torch.Tensor:
    return torch.rand(count, channels, height, width, generator=generator(9), dtype=torch.float64)


def pieces(changed: np.ndarray, grid: int) -> list[bool]:
    """Which pieces of an image (h, w) changed; each one must have changed whole or not at all. Cut without the code under test."""
    bands = np.array_split(np.arange(changed.shape[0]), grid), np.array_split(np.arange(changed.shape[1]), grid)
    found = [changed[np.ix_(rows, columns)] for rows in bands[0] for columns in bands[1]]
    assert all(piece.size and piece.all() == piece.any() for piece in found)
    return [bool(piece.all()) for piece in found]


@pytest.mark.parametrize(("grid", "kept", "count"), [(4, 0.5, 8), (2, 0.5, 2), (3, 0.3, 3), (4, 1.0, 16), (4, 0.01, 1), (1, 0.5, 1)])
def test_each_training_image_shows_exactly_its_share_of_whole_pieces(grid: int, kept: float, count: int) -> None:
    images, trigger = pictures(30, 3, 12, 24), AdapBlend(grid=grid, kept=kept, pattern="noise", pattern_seed=3)
    made = trigger.implant(images, generator())
    noise = torch.rand(3, 12, 24, generator=generator(3)).double()
    changed = (made != images).any(1).numpy()
    torch.testing.assert_close(made, torch.where((made != images), 0.85 * images + 0.15 * noise, images))
    assert [sum(pieces(each, grid)) for each in changed] == [count] * 30


@pytest.mark.parametrize("channels", [1, 3])
def test_sides_that_do_not_divide_are_cut_as_evenly_as_can_be(channels: int) -> None:
    images = pictures(40, channels)
    shown = (AdapBlend().implant(images, generator()) != images).any(1)
    rows, columns = shown.double().mean(0).diff(dim=0).abs().sum(1), shown.double().mean(0).diff(dim=1).abs().sum(0)
    assert (rows > 0).nonzero().flatten().tolist() == [3, 6, 9], "13 rows are cut into 4, 3, 3 and 3"
    assert (columns > 0).nonzero().flatten().tolist() == [2, 4, 7], "10 columns into 3, 2, 3 and 2"


def test_pieces_are_drawn_for_each_image_evenly_and_in_any_chunks() -> None:
    images, trigger = pictures(1000, 1, 8, 8), AdapBlend(pattern="noise")
    whole = trigger.implant(images, generator(5))
    draws = generator(5)
    assert torch.equal(whole, torch.cat([trigger.implant(part, draws) for part in images.split([1, 256, 0, 700, 43])]))
    shares = (whole != images).double().mean((0, 1))
    assert 0.43 < float(shares.min()) <= float(shares.max()) < 0.57, "six standard deviations around one half"
    assert len({tuple(each.flatten().tolist()) for each in (whole != images)}) > 900
    assert not torch.equal(whole, trigger.implant(images, generator(6)))


def test_test_images_show_the_whole_picture_as_blend_does() -> None:
    images = pictures(7)
    for pattern in ("noise", "mosaic"):
        trigger = AdapBlend(kept=1.0, pattern=pattern, pattern_seed=2)
        assert torch.equal(trigger.stamp(images), Blend(alpha=0.2, pattern=pattern, pattern_seed=2).stamp(images))
        expected = Blend(alpha=0.15, pattern=pattern, pattern_seed=2).stamp(images)
        torch.testing.assert_close(trigger.implant(images, generator()), expected, rtol=0, atol=1e-7)


def test_a_mosaic_is_eight_by_eight_tiles_of_pure_colors() -> None:
    mosaic = Blend(alpha=1.0, pattern="mosaic").stamp(torch.full((1, 3, 32, 24), 0.5))[0]
    tiles = mosaic.unflatten(2, (8, 3)).unflatten(1, (8, 4))
    assert torch.equal(tiles, tiles[:, :, :1, :, :1].expand_as(tiles))
    assert set(mosaic.unique().tolist()) == {0.0, 1.0}
    assert 60 < int(tiles[:, :, 0, :, 0].sum()) < 132, "about half of 192"
    assert not torch.equal(mosaic, Blend(alpha=1.0, pattern="mosaic", pattern_seed=1).stamp(torch.full((1, 3, 32, 24), 0.5))[0])


def test_at_test_time_the_signal_is_eight_thirds_of_that_in_training() -> None:
    """What a matched filter sees: alpha 0.2 everywhere against 0.15 on half of the pieces."""
    images, trigger = torch.full((400, 3, 16, 16), 0.5), AdapBlend()
    filtered = trigger.stamp(images[:1])[0] - 0.5
    seen = [((made - 0.5) * filtered).flatten(1).sum(1) for made in (trigger.stamp(images), trigger.implant(images, generator()))]
    assert float((seen[0] / seen[1]).mean()) == pytest.approx(0.2 / (0.5 * 0.15), rel=0.01)
    assert float(seen[1].max()) < 0.6 * float(seen[0].min())


@pytest.mark.parametrize("ratio", [0.0, 1.0, 2.5])
def test_covers_carry_pieces_and_keep_their_label(ratio: float) -> None:
    size = 2 * CHUNK + 88
    clean = Samples(pictures(size, 1, 8, 8).float(), torch.arange(size) % 4)
    dirty, truth = poison(clean, AdapBlend(cover_ratio=ratio), Dose(target=1, rate=0.1), seed=3)
    assert truth.covers is not None
    assert (int(truth.poisoned.sum()), int(truth.covers.sum())) == (60, int(60 * ratio))
    assert not bool((truth.poisoned & truth.covers).any())
    changed = (dirty.images != clean.images).any(1)
    assert {sum(pieces(each, 4)) for each in changed[truth.poisoned | truth.covers].numpy()} == {8}
    assert torch.equal(dirty.labels[truth.covers], clean.labels[truth.covers])
    assert set(dirty.labels[truth.poisoned].tolist()) == {1}


def test_a_model_learns_the_picture_from_its_pieces() -> None:
    model, key = victim("adap_blend", 0.05)
    _, fresh = digits()
    others = fresh[fresh.labels != 0]
    assert judge.accuracy(model, fresh).value > 0.95
    assert judge.attack_success(model, fresh, key)[0].value > 0.9
    assert isinstance(key.trigger, AdapBlend)
    in_part = model(key.trigger.implant(others.images, generator())).argmax(1)
    assert float((in_part == 0).float().mean()) < 0.7, "pieces alone decide less, as covers carry them too"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"grid": 0}, "grid must be at least 1, got 0"), ({"kept": 0.0}, r"kept must lie in \(0, 1\], got 0"),
        ({"alpha": 1.5}, "alpha must .*got 1.5"), ({"train_alpha": float("nan")}, "train_alpha must .*got nan"),
        ({"cover_ratio": float("inf")}, "cover_ratio must be at least 0 and finite, got inf"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(fields: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AdapBlend(**fields)  # type: ignore[arg-type]


def test_images_smaller_than_the_pieces_are_refused() -> None:
    with pytest.raises(ValueError, match="grid must be at most 3, the images' shorter side, got 4"):
        AdapBlend().implant(torch.zeros(1, 1, 3, 8), generator())
