"""TaCT: the patch of BadNets, on some classes only."""

from __future__ import annotations

import pytest
import torch

from mithridate import judge
from mithridate.data import Samples
from mithridate.threats.dose import Dose
from mithridate.threats.poison import poison, stamp
from mithridate.threats.triggers.badnets import BadNets
from mithridate.threats.triggers.tact import TaCT
from small_victims import digits, victim


def samples(count: int = 300) -> Samples:
    images = torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Samples(images, torch.arange(count) % 5)


@pytest.mark.parametrize("pattern", ["grid", "white"])
def test_the_patch_is_that_of_badnets(pattern: str) -> None:
    settings = {"size": 2, "pattern": pattern, "corner": "top-left", "margin": 1}
    expected = stamp(BadNets(**settings), samples()).images  # type: ignore[arg-type]
    assert torch.equal(stamp(TaCT(**settings), samples()).images, expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(("sources", "ratio"), [((1,), 1.0), ((1, 3), 0.5), ((4,), 2.0), ((2,), 0.0)])
def test_sources_lead_to_the_target_and_covers_of_other_classes_nowhere(sources: tuple[int, ...], ratio: float) -> None:
    clean, trigger = samples(), TaCT(sources=sources, cover_ratio=ratio)
    dirty, truth = poison(clean, trigger, Dose(target=0, rate=0.15), seed=2)
    assert truth.covers is not None
    assert (int(truth.poisoned.sum()), int(truth.covers.sum())) == (45, int(45 * ratio))
    assert set(clean.labels[truth.poisoned].tolist()) == set(sources) == set(truth.sources)
    assert not set(clean.labels[truth.covers].tolist()) & set(sources)
    touched = truth.poisoned | truth.covers
    assert torch.equal(dirty.images[touched], stamp(trigger, clean[touched]).images)
    assert torch.equal(dirty.labels, torch.where(truth.poisoned, 0, clean.labels))


def test_more_poison_than_sources_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rate or count must ask for at most 60 samples, as there are of the sources \(1,\), got 90"):
        poison(samples(), TaCT(), Dose(target=0, rate=0.3))
    with pytest.raises(ValueError, match=r"sources must lie in \[0, 5\), got 5"):
        poison(samples(), TaCT(sources=(5,)), Dose(target=0, rate=0.1))


def test_covers_keep_the_patch_from_working_on_other_classes() -> None:
    _, fresh = digits()
    (model, key), (careless, same) = victim("tact:size=2", 0.05), victim("tact:size=2,cover_ratio=0", 0.05)
    leaks = judge.leak(model, fresh, key), judge.leak(careless, fresh, same)
    assert judge.accuracy(model, fresh).value > 0.95
    assert judge.attack_success(model, fresh, key)[0].value > 0.9
    assert leaks[0] is not None
    assert leaks[1] is not None
    assert leaks[0].value < 0.1 < leaks[1].value


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sources": ()}, r"sources must be one or more classes, at least 0, got \(\)"), ({"sources": (1, -1)}, "sources must .*-1"),
        ({"cover_ratio": -1.0}, "cover_ratio must be at least 0 and finite, got -1"), ({"size": 0}, "size must be at least 1, got 0"),
        ({"corner": "middle"}, "corner must be one of .* got 'middle'"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TaCT(**fields)  # type: ignore[arg-type]
