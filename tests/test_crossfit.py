"""Cross-fitted scores: no image is scored by a scorer that saw it, and thresholds made of them hold."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from mithridate.calibrate import threshold
from mithridate.crossfit import cross_scores, score_all
from mithridate.data import Samples
from mithridate.roles import Progress, silent


def numbered(count: int) -> Samples:
    """Images that hold their own number."""
    images = torch.arange(count, dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 1, 2, 2) / count
    return Samples(images, torch.zeros(count, dtype=torch.int64))


class Memory(nn.Module):
    """Scores 1 for images it has seen, 0 for others."""

    differentiable = False

    def __init__(self, seen: Tensor) -> None:
        super().__init__()
        self.register_buffer("seen", seen)

    def forward(self, images: Tensor) -> Tensor:
        return torch.isin(images[:, 0, 0, 0], self.get_buffer("seen")).float()


@dataclass(frozen=True)
class Memorizing:
    """A detector that learns its clean images by heart, and writes down what it was shown."""

    fits: list[set[float]] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    def fit(self, model: nn.Module, clean: Samples, *, seed: int = 0, progress: Progress = silent) -> Memory:
        self.fits.append(set(clean.images[:, 0, 0, 0].tolist()))
        self.seeds.append(seed)
        progress("memorizing", 1, 1)
        return Memory(clean.images[:, 0, 0, 0])


@pytest.mark.parametrize(("count", "folds"), [(10, 2), (23, 5), (9, 4), (7, 7), (6, 4)])
def test_no_image_is_scored_by_who_saw_it(count: int, folds: int) -> None:
    detector, told = Memorizing(), []
    samples = numbered(count)
    scores = cross_scores(
        detector, nn.Flatten(), samples, folds=folds, seed=4, progress=lambda task, done, total, note="": told.append(task)
    )
    assert scores.shape == (count,) and not scores.any()
    assert score_all(detector.fit(nn.Flatten(), samples), samples, torch.device("cpu")).all(), "the memory works"
    everything = set(samples.images[:, 0, 0, 0].tolist())
    held = [everything - fit for fit in detector.fits[:-1]]
    assert len(held) == folds == len(told)
    assert sum(map(len, held)) == count and set.union(*held) == everything, "the folds are disjoint and complete"
    assert max(map(len, held)) - min(map(len, held)) <= 1
    assert set(detector.seeds[:-1]) == {4}


class Level(nn.Module):
    """Distance to a mean."""

    differentiable = True

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)

    def forward(self, images: Tensor) -> Tensor:
        return (images[:, :, 0, 0] - self.get_buffer("mean")).square().sum(1)


@dataclass(frozen=True)
class Gaussian:
    def fit(self, model: nn.Module, clean: Samples, *, seed: int = 0, progress: Progress = silent) -> Level:
        return Level(clean.images[:, :, 0, 0].mean(0))


def gaussian(count: int, seed: int) -> Samples:
    values = (0.5 + 0.1 * torch.randn(count, 3, 1, 1, generator=torch.Generator().manual_seed(seed))).clamp(0, 1)
    return Samples(values, torch.zeros(count, dtype=torch.int64))


def test_scores_stand_in_the_order_of_the_images() -> None:
    samples = gaussian(40, 0)
    scores = cross_scores(Gaussian(), nn.Flatten(), samples, folds=40)
    for i in (0, 17, 39):
        others = samples[torch.arange(40) != i].images[:, :, 0, 0].mean(0)
        assert float(scores[i]) == pytest.approx(float((samples.images[i, :, 0, 0] - others).square().sum()), rel=1e-4)


@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.2])
def test_realised_rate_lies_within_binomial_bounds(fpr: float) -> None:
    """Mean of many small calibrations, so that the bound is tight: 60 x 500 fresh images."""
    flagged = 0
    for seed in range(60):
        clean = gaussian(120, seed)
        cut = threshold(cross_scores(Gaussian(), nn.Flatten(), clean, seed=seed), fpr)
        scorer = Gaussian().fit(nn.Flatten(), clean)
        flagged += int(cut.flag(score_all(scorer, gaussian(500, 1000 + seed), torch.device("cpu"))).sum())
    rate = flagged / 30_000
    expected = math.floor(121 * fpr) / 121  # what 120 calibration scores can promise
    spread = (expected * (1 - expected) * (1 / 30_000 + 1 / (60 * 120))) ** 0.5  # of the fresh images, and of the calibrations
    assert abs(rate - expected) < 3.3 * spread


def test_same_seed_same_scores_and_no_global_draws() -> None:
    samples = gaussian(50, 0)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    first, again, other = (cross_scores(Gaussian(), nn.Flatten(), samples, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("folds", [0, 1, 6])
def test_folds_out_of_range_are_named(folds: int) -> None:
    with pytest.raises(ValueError, match=rf"folds must lie in \[2, 5\], got {folds}"):
        cross_scores(Gaussian(), nn.Flatten(), gaussian(5, 0), folds=folds)
