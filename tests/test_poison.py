"""Poisoning and its triggers, pixel for pixel against a loop over images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mithridate.data import Samples, to_float, to_uint8
from mithridate.roles import Trigger
from mithridate.threats.dose import Dose, next_class
from mithridate.threats.poison import CHUNK, poison, stamp
from mithridate.threats.stamping.patches import CORNERS
from mithridate.threats.triggers.badnets import BadNets
from mithridate.threats.triggers.blend import Blend

GRID = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 1]])  # the released ABL and NAD pattern, top row first


def samples(count: int = 60, channels: int = 3, height: int = 10, width: int = 8, floats: bool = False) -> Samples:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, channels, height, width), generator=generator, dtype=torch.uint8)
    labels = torch.randint(4, (count,), generator=generator)
    return Samples(images / 255 if floats else images, labels, ("a", "b", "c", "d"), tuple(f"{i}.png" for i in range(count)))


def place(image: np.ndarray, patch: np.ndarray, corner: str, margin: int) -> np.ndarray:
    """One patch (s, s, c) on one image (h, w, c), by coordinates."""
    made, size = image.copy(), len(patch)
    height, width = image.shape[:2]
    top = margin if corner.startswith("top") else height - margin - size
    left = margin if corner.endswith("left") else width - margin - size
    for y in range(size):
        for x in range(size):
            made[top + y, left + x] = patch[y, x]
    return made


def by_hand(images: Tensor, patch: np.ndarray, corners: tuple[str, ...], margin: int) -> Tensor:
    made = []
    for image in images.permute(0, 2, 3, 1).numpy():
        for corner in corners:
            image = place(image, patch, corner, margin)  # noqa: PLW2901
        made.append(torch.from_numpy(image).permute(2, 0, 1))
    return torch.stack(made)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("margin", [0, 1, 3])
@pytest.mark.parametrize("corner", [*CORNERS, "all"])
@pytest.mark.parametrize("pattern", ["white", "grid"])
def test_badnets_equals_the_loop(pattern: str, corner: str, margin: int, channels: int) -> None:
    clean = samples(12, channels)
    patch = np.repeat((255 * (np.ones((3, 3)) if pattern == "white" else GRID)).astype(np.uint8)[:, :, None], channels, 2)
    expected = by_hand(clean.images, patch, CORNERS if corner == "all" else (corner,), margin)
    trigger = BadNets(pattern=pattern, corner=corner, margin=margin)  # type: ignore[arg-type]
    assert torch.equal(stamp(trigger, clean).images, expected)
    torch.testing.assert_close(trigger.stamp(clean.images / 255), expected / 255)


@pytest.mark.parametrize("size", [1, 2, 4, 5, 8])
def test_grids_of_any_size_are_checkers_with_a_lit_corner(size: int) -> None:
    stamped = BadNets(size=size, pattern="grid").stamp(torch.full((1, 1, 8, 8), 0.5))[0, 0]
    expected = np.full((8, 8), 0.5)
    for y in range(size):
        for x in range(size):
            expected[8 - size + y, 8 - size + x] = float((y + x) % 2 == 0 and (size == 1 or (y, x) != (0, 0)))
    assert np.array_equal(stamped.numpy(), expected) and stamped[7, 7] == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_badnets_of_a_picture(tmp_path: Path, channels: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "patch.png")
    clean = samples(5, channels)
    grey = np.array(Image.fromarray(picture).convert("L"))[:, :, None]
    expected = by_hand(clean.images, picture if channels == 3 else grey, ("top-left",), 2)
    trigger = BadNets(size=4, pattern=str(tmp_path / "patch.png"), corner="top-left", margin=2)
    assert torch.equal(stamp(trigger, clean).images, expected)
    assert BadNets(size=2, pattern=str(tmp_path / "patch.png")).stamp(clean.images / 255).shape == clean.images.shape, "it is resized"


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("floats", [False, True])
def test_blend_of_noise_equals_the_loop(alpha: float, floats: bool) -> None:
    clean = samples(9, floats=floats)
    noise = torch.rand(3, 10, 8, generator=torch.Generator().manual_seed(4)).double().numpy()
    made = stamp(Blend(alpha=alpha, pattern_seed=4), clean).images
    for i in range(9):
        exact = (1 - alpha) * to_float(clean.images[i]).double().numpy() + alpha * noise
        if floats:
            np.testing.assert_allclose(made[i].numpy(), exact, atol=1e-6)
        else:  # within half a level, and a float's error, of the exact mix
            assert np.abs(made[i].numpy() - 255 * exact).max() <= 0.5 + 1e-3
    assert not torch.equal(made, stamp(Blend(alpha=alpha, pattern_seed=5), clean).images)


def test_blend_of_a_picture(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (10, 8, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "p.png")
    clean = samples(6)
    made = stamp(Blend(alpha=0.25, pattern=str(tmp_path / "p.png")), clean).images.permute(0, 2, 3, 1).numpy()
    exact = 0.75 * clean.images.permute(0, 2, 3, 1).numpy() + 0.25 * picture
    assert np.abs(made - exact).max() <= 0.5 + 1e-3


def test_uint8_survives_the_way_through_floats() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(every)), every)


class Shift:
    """A trigger that leaves the range, as a careless one would."""

    def __init__(self, by: float) -> None:
        self.by = by

    def stamp(self, images: Tensor) -> Tensor:
        return images + self.by


@pytest.mark.parametrize("by", [0.9, -0.9, 300 / 255])
def test_uint8_is_clipped_and_never_wraps(by: float) -> None:
    clean = samples()
    made = stamp(Shift(by), clean).images
    exact = (clean.images.double() + 255 * by).clamp(0, 255)
    assert made.dtype == torch.uint8
    assert float((made.double() - exact).abs().max()) <= 0.5 + 1e-3
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        stamp(Shift(by), samples(floats=True))


@pytest.mark.parametrize(("rate", "count"), [(1.0, 60), (0.5, 30), (0.1, 6), (0.024, 1), (0.026, 2), (1e-9, 1)])
@pytest.mark.parametrize("trigger", [BadNets(), Blend()], ids=["badnets", "blend"])
def test_poison_changes_what_the_truth_says_and_nothing_else(trigger: Trigger, rate: float, count: int) -> None:
    clean = samples()
    before = clean.images.clone(), clean.labels.clone()
    dirty, truth = poison(clean, trigger, Dose(target=2, rate=rate), seed=3)
    assert torch.equal(clean.images, before[0]) and torch.equal(clean.labels, before[1])
    assert int(truth.poisoned.sum()) == count and truth.poisoned.dtype == torch.bool
    assert torch.equal(dirty.images[~truth.poisoned], clean.images[~truth.poisoned])
    assert torch.equal(dirty.labels[~truth.poisoned], clean.labels[~truth.poisoned])
    assert torch.equal(dirty.images[truth.poisoned], stamp(trigger, clean[truth.poisoned]).images)
    assert set(dirty.labels[truth.poisoned].tolist()) == {2}
    assert torch.equal(truth.labels, clean.labels) and truth.target == 2
    assert (dirty.classes, dirty.names, dirty.images.dtype) == (clean.classes, clean.names, torch.uint8)


def test_truth_says_how() -> None:
    _, truth = poison(samples(), BadNets(size=2, corner="top-left"), Dose(target=1, rate=0.2))
    assert truth.trigger == "badnets:size=2,corner=top-left"
    assert repr(truth) == "Truth(12 of 60 poisoned, target 1, badnets:size=2,corner=top-left)"


def test_seeds_choose_and_nothing_else_does() -> None:
    clean = samples()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    chosen = [poison(clean, BadNets(), Dose(target=0, rate=0.3), seed=seed)[1].poisoned for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(chosen[0], chosen[1]) and not torch.equal(chosen[0], chosen[2])
    assert torch.equal(poison(clean, Blend(), Dose(target=1, rate=0.3))[1].poisoned, chosen[0]), "rivals poison the same images"
    hits = sum(poison(clean, BadNets(), Dose(target=0, rate=0.3), seed=seed)[1].poisoned.long() for seed in range(200))
    assert 30 < int(hits.min()) <= int(hits.max()) < 90, "every image, of any class, is as likely"  # type: ignore[union-attr]


def test_more_images_than_one_chunk() -> None:
    clean = samples(2 * CHUNK + 3, 1, 4, 4)
    dirty, truth = poison(clean, Blend(), Dose(target=0, rate=1.0))
    assert bool(truth.poisoned.all())
    expected = torch.cat([stamp(Blend(), clean[[i]]).images for i in range(0, len(clean), 50)])
    assert torch.equal(dirty.images[::50], expected)
    assert torch.equal(stamp(Blend(), clean).images, dirty.images)
    assert stamp(BadNets(), clean[:0]).images.shape == (0, 1, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rate": 0.0}, r"rate must lie in \(0, 1\], got 0.0"), ({"rate": 1.1}, "rate .*got 1.1"),
        ({"rate": float("nan")}, "rate .*got nan"),
        ({"target": -1}, r"target must lie in \[0, 4\), got -1"), ({"target": 4}, "target .*got 4"),
        ({"trigger": BadNets(size=9)}, r"size \+ margin must be at most 8, got 9 \+ 0"),
        ({"trigger": BadNets(size=3, margin=6)}, r"size \+ margin must be at most 8, got 3 \+ 6"),
        ({"trigger": BadNets(pattern="/nowhere.png")}, "pattern must be a readable picture, got '/nowhere.png'"),
        ({"trigger": Blend(pattern="/nowhere.png")}, "pattern must be a readable picture, got '/nowhere.png'"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        poison(samples(), arguments.pop("trigger", BadNets()), Dose(**arguments))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: BadNets(size=0), "size must be at least 1, got 0"), (lambda: BadNets(margin=-1), "margin must be at least 0, got -1"),
        (lambda: BadNets(corner="middle"), "corner must be one of .* or all, got 'middle'"),  # type: ignore[arg-type]
        (lambda: Blend(alpha=0), r"alpha must lie in \(0, 1\], got 0"), (lambda: Blend(alpha=float("nan")), "alpha .*got nan"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(make: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()  # type: ignore[operator]


def test_text_files_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_text("not a picture")
    with pytest.raises(ValueError, match="pattern must be a readable picture"):
        Blend(pattern=str(tmp_path / "p.png")).stamp(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("pattern", ["grid", "white"])
def test_uint8_images_are_stamped_to_the_same_pixels_as_floats(pattern: str) -> None:
    images = torch.randint(0, 256, (20, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    trigger = BadNets(pattern=pattern, corner="all", margin=1)
    assert trigger.stamp(images).dtype == torch.uint8
    assert torch.equal(trigger.stamp(images), to_uint8(trigger.stamp(to_float(images))))


class Loud:
    """A trigger whose training images, covers and stamps are told apart; it draws chance from the generator."""

    cover_ratio = 0.5

    def stamp(self, images: Tensor) -> Tensor:
        return torch.full_like(images, 1.0)

    def implant(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return torch.full_like(images, 0.4) + 0.2 * torch.rand(len(images), 1, 1, 1, generator=generator)

    def cover(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return images * 0 + (labels / 255)[:, None, None, None]


def test_what_goes_into_training_and_covers_are_the_triggers_own() -> None:
    clean = samples()
    dirty, truth = poison(clean, Loud(), Dose(target=1, rate=0.2), seed=5)
    again, _ = poison(clean, Loud(), Dose(target=1, rate=0.2), seed=5)
    assert truth.covers is not None and int(truth.covers.sum()) == 6 and not bool((truth.covers & truth.poisoned).any())
    inside = dirty.images[truth.poisoned]
    assert 102 <= int(inside.min()) < int(inside.max()) <= 153 and torch.equal(dirty.images, again.images)
    assert torch.equal(dirty.images[truth.covers].float().mean((1, 2, 3)), clean.labels[truth.covers].float())
    assert torch.equal(dirty.labels[truth.covers], clean.labels[truth.covers])
    untouched = ~(truth.covers | truth.poisoned)
    assert torch.equal(dirty.images[untouched], clean.images[untouched])
    assert int(poison(clean, Loud(), Dose(rate=0.2, cover_rate=0.0))[1].covers.sum()) == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("count", [1, 7, 60])
def test_a_count_is_exact(count: int) -> None:
    assert int(poison(samples(), BadNets(), Dose(count=count))[1].poisoned.sum()) == count


def test_clean_label_keeps_labels_and_poisons_the_target_class_only() -> None:
    clean = samples()
    dirty, truth = poison(clean, BadNets(), Dose(target=2, count=5, clean_label=True))
    assert torch.equal(dirty.labels, clean.labels) and set(clean.labels[truth.poisoned].tolist()) == {2}
    there = int((clean.labels == 2).sum())
    with pytest.raises(ValueError, match=f"rate or count must ask for at most {there} samples, as there are of class 2, got 60"):
        poison(clean, BadNets(), Dose(target=2, rate=1.0, clean_label=True))
    with pytest.raises(ValueError, match="target must be one class for a clean-label attack"):
        Dose(target=(1, 0), clean_label=True)


def test_sources_are_poisoned_and_covers_are_others() -> None:
    clean = samples()
    _, truth = poison(clean, BadNets(), Dose(target=0, rate=0.2, sources=(1, 3), cover_rate=0.3))
    assert set(clean.labels[truth.poisoned].tolist()) == {1, 3} and truth.sources == (1, 3)
    assert truth.covers is not None and set(clean.labels[truth.covers].tolist()) == {0, 2}
    with pytest.raises(ValueError, match=r"of the sources \(1,\), got 54"):
        poison(clean, BadNets(), Dose(rate=0.9, sources=(1,)))
    with pytest.raises(ValueError, match="cover_rate must ask for at most .* samples, as are left, got 54"):
        poison(clean, BadNets(), Dose(rate=0.2, cover_rate=0.9))


def test_all_to_all_moves_every_label_on() -> None:
    clean = samples()
    dirty, truth = poison(clean, BadNets(), Dose(target=next_class(4), rate=0.5))
    assert next_class(4) == (1, 2, 3, 0) and truth.target == (1, 2, 3, 0)
    assert torch.equal(dirty.labels[truth.poisoned], (clean.labels[truth.poisoned] + 1) % 4)
    assert torch.equal(dirty.labels[~truth.poisoned], clean.labels[~truth.poisoned])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rate": 0.0}, r"rate must lie in \(0, 1\], got 0"), ({"count": 0}, "count must be at least 1, got 0"),
        ({"cover_rate": 1.0}, r"cover_rate must lie in \[0, 1\), got 1"), ({"cover_rate": -0.1}, "cover_rate must"),
    ],
)  # fmt: skip
def test_doses_that_make_no_sense_are_named(fields: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Dose(**fields)  # type: ignore[arg-type]
