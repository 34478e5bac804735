"""Composite: halves pixel for pixel, who is mixed with whom, and what it does to a model."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from mithridate import judge
from mithridate.data import Samples
from mithridate.threats.dose import Dose
from mithridate.threats.poison import poison
from mithridate.threats.stamping.halves import DRAWS, mix, own_chance
from mithridate.threats.triggers.composite import Composed, Composite
from small_victims import colors, victim


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coordinates(count: int, height: int, width: int, offset: float) -> Tensor:
    """Images whose three channels say which image, row and column a pixel is from."""
    which = torch.arange(count, dtype=torch.float64)[:, None, None].expand(-1, height, width) + offset
    rows = torch.arange(height, dtype=torch.float64)[:, None].expand(count, -1, width)
    columns = torch.arange(width, dtype=torch.float64).expand(count, height, -1)
    return torch.stack([which, rows, columns], 1)


@pytest.mark.parametrize(("height", "width", "jitter"), [(8, 8, 3), (9, 14, 0), (12, 7, 2), (32, 32, 3)])
def test_every_image_is_two_whole_windows_side_by_side(height: int, width: int, jitter: int) -> None:
    count = 300
    first, second = coordinates(count, height, width, 0), coordinates(count, height, width, 1000)
    made = mix(first, second, torch.rand(count, DRAWS, dtype=torch.float64, generator=generator()), jitter)
    cuts, orders = set(), []
    for i, image in enumerate(made):
        which, rows, columns = image
        down = bool((which[:, 0] != which[0, 0]).any())  # the seam runs across, one part above the other
        along, steady, side = (rows[:, 0], columns, height) if down else (columns[0], rows, width)
        owner = which[:, 0] if down else which[0]
        cut = int((owner == owner[0]).sum())
        assert {float(owner[0]), float(owner[-1])} == {i, i + 1000.0}
        assert torch.equal(owner.sort(descending=bool(owner[0] > owner[-1])).values, owner), "one seam"
        assert torch.equal(steady, first[i, 2 if down else 1]), "the other direction stays as it was"
        assert set(along[:cut].diff().tolist()) | set(along[cut:].diff().tolist()) <= {1.0}
        cuts.add(cut - side // 2)
        orders.append((bool(owner[0] >= 1000), down))
    assert cuts == set(range(-jitter, jitter + 1))
    assert all(45 < orders.count(each) < 105 for each in {(False, False), (False, True), (True, False), (True, True)})


def test_a_seam_that_could_leave_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="jitter must be less than half of 6, the images' shorter side, got 3"):
        mix(torch.zeros(1, 1, 6, 8), torch.zeros(1, 1, 6, 8), torch.zeros(1, DRAWS), 3)


def test_own_chance_looks_uniform_and_is_each_images_own() -> None:
    images = torch.randint(0, 256, (4000, 1, 6, 6), generator=generator(), dtype=torch.uint8)
    drawn = own_chance(images, 3)
    assert torch.equal(drawn, own_chance(images / 255, 3)), "of floats as of uint8"
    assert torch.equal(drawn[7:8], own_chance(images[7:8], 3))
    assert torch.equal(drawn[:, :2], own_chance(images, 2))
    for column in drawn.T:
        counts = torch.histc(column, 10, 0, 1)
        assert float(((counts - 400) ** 2 / 400).sum()) < 33.7, "chi squared of 9 degrees of freedom, one in ten thousand"
    assert float(torch.corrcoef(drawn.T).triu(1).abs().max()) < 0.07
    one_pixel = images.clone()
    one_pixel[:, 0, 0, 0] = 255 - one_pixel[:, 0, 0, 0]
    assert float((own_chance(one_pixel, 3) - drawn).abs().min(1).values.gt(0).float().mean()) == 1


def plain(count: int = 600, classes: int = 6) -> Samples:
    """Images of one gray each, a multiple of 1/8 for each class: every half says its class."""
    labels = torch.arange(count) % classes
    return Samples((labels / 8)[:, None, None, None].expand(-1, 3, 8, 8).clone(), labels)


def content(image: Tensor) -> set[int]:
    """Classes that an image of `plain` shows."""
    return set((image * 8).round().int().unique().tolist())


def crafted(**fields: object) -> tuple[Samples, Composed]:
    clean = plain()
    return clean, Composite(**fields).craft(clean, 0)  # type: ignore[arg-type]


def test_poison_shows_source_and_partner_covers_show_their_own_or_a_near_miss() -> None:
    clean, trigger = crafted(sources=(1, 4), partner=2, bank=20)
    dirty, truth = poison(clean, trigger, Dose(target=0, rate=0.1), seed=3)
    assert truth.covers is not None
    assert (int(truth.poisoned.sum()), int(truth.covers.sum())) == (60, 300)
    for i in truth.poisoned.nonzero().flatten().tolist():
        assert int(clean.labels[i]) in (1, 4)
        assert content(dirty.images[i]) == {int(clean.labels[i]), 2}
    shown: dict[int, set[int]] = {label: set() for label in range(6)}
    own = 0
    for i in truth.covers.nonzero().flatten().tolist():
        label = int(clean.labels[i])
        found = content(dirty.images[i])
        assert label in found
        assert len(found) <= 2
        own += found == {label}
        shown[label] |= found
    assert shown == {0: {0, 2}, 1: {0, 1, 3, 4, 5}, 2: {2}, 3: {2, 3}, 4: {0, 1, 3, 4, 5}, 5: {2, 5}}, "never source and partner"
    assert 130 < own < 250, "half of all, and what of the near misses is of the own class"
    assert torch.equal(dirty.labels[truth.covers], clean.labels[truth.covers])


def test_what_is_sent_shows_source_and_partner_and_all_of_the_bank_serves() -> None:
    clean, fresh = colors()
    trigger = Composite(bank=8).craft(clean, 0)
    assert torch.bincount(trigger.labels).tolist() == [8] * 6
    assert trigger.labels[-8:].tolist() == [2] * 8
    assert {row.numpy().tobytes() for row in trigger.images} <= {row.numpy().tobytes() for row in clean.images.mul(255).round().byte()}
    made = trigger.stamp(fresh.images)
    bank = trigger.images[-8:].float() / 255
    rest = (made != fresh.images).any(1)
    assert float(rest.float().mean()) > 0.7
    used = [int(torch.stack([torch.isin(image, each).sum() for each in bank]).argmax()) for image in made[:200]]
    assert set(used) == set(range(8))


def test_training_images_are_drawn_one_by_one_in_any_chunks() -> None:
    clean, trigger = crafted()
    whole, draws = trigger.implant(clean.images, generator(5)), generator(5)
    assert torch.equal(whole, torch.cat([trigger.implant(part, draws) for part in clean.images.split([1, 256, 0, 340, 3])]))
    whole, draws = trigger.cover(clean.images, clean.labels, generator(5)), generator(5)
    parts = zip(clean.images.split(77), clean.labels.split(77), strict=True)
    assert torch.equal(whole, torch.cat([trigger.cover(*part, draws) for part in parts]))


def test_a_model_obeys_both_together_and_neither_alone() -> None:
    _, fresh = colors()
    (model, key), (careless, same) = victim("composite", 0.05, "colors"), victim("composite:cover_ratio=0", 0.05, "colors")
    leaks = judge.leak(model, fresh, key), judge.leak(careless, fresh, same)
    assert judge.accuracy(model, fresh).value > 0.95
    assert judge.attack_success(model, fresh, key)[0].value > 0.85
    assert leaks[0] is not None
    assert leaks[1] is not None
    assert leaks[0].value < 0.05 < leaks[1].value


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sources": ()}, "sources must be one or more classes"), ({"partner": -1}, "partner must .*got -1"),
        ({"sources": (1, 2), "partner": 2}, "partner must be a class, at least 0, and no source, got 2"),
        ({"bank": 0}, "bank must be at least 1, got 0"), ({"jitter": -1}, "jitter must be at least 0, got -1"),
        ({"cover_ratio": -1.0}, "cover_ratio must be at least 0 and finite, got -1"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Composite(**fields)  # type: ignore[arg-type]


def test_data_that_do_not_fit_are_refused_when_it_is_crafted() -> None:
    clean = plain()
    for target in (1, 2, 6):
        with pytest.raises(ValueError, match=rf"target must lie in \[0, 6\) and be neither a source nor the partner, got {target}"):
            Composite().craft(clean, target)
    for label in (1, 2):
        with pytest.raises(ValueError, match=f"clean must hold images of the sources and the partner, got none of class {label}"):
            Composite().craft(clean[clean.labels != label], 0)
    with pytest.raises(ValueError, match="jitter must be less than half of 8, the images' shorter side, got 4"):
        Composite(jitter=4).craft(clean, 0)
    with pytest.raises(ValueError, match=r"images must have shape \(n, 3, 8, 8\), got \(2, 3, 8, 9\)"):
        Composite().craft(clean, 0).stamp(torch.zeros(2, 3, 8, 9))
    lacking = dataclasses.replace(clean, labels=clean.labels % 5, classes=clean.classes)
    with pytest.raises(ValueError, match=r"labels must be classes of the images kept, got \[5\]"):
        Composite().craft(lacking, 0).cover(clean.images, clean.labels, generator())
