"""Kernel densities equal scikit-learn's, bandwidths are the likeliest, and scores of different classes share a scale."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KernelDensity
from torch import Tensor

from mithridate.analysis.density import best_bandwidth, leave_one_out, log_density, square_distances
from mithridate.data import Samples
from mithridate.defenses.detectors.kde import KDE
from mithridate.metrics import auroc
from splitting import Split


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("dimension", [1, 3, 64, 512])
@pytest.mark.parametrize("bandwidth", [0.05, 0.7, 10.0])
def test_density_equals_scikit_learn(dimension: int, bandwidth: float) -> None:
    """Far points at small bandwidths have densities that no float can hold; their logarithms must still agree."""
    bank, points = 5 + draw(80, dimension), 5 + 3 * draw(30, dimension, seed=1)
    expected = KernelDensity(bandwidth=bandwidth).fit(bank.numpy()).score_samples(points.numpy())
    np.testing.assert_allclose(log_density(points, bank, bandwidth).numpy(), expected, rtol=1e-12, atol=1e-5)
    single = log_density(points.float(), bank.float(), bandwidth).numpy()
    np.testing.assert_allclose(single, expected, rtol=1e-5, atol=1e-4)


def test_each_point_has_its_own_bank_and_bandwidth() -> None:
    bank, points, member = draw(40, 5), draw(2, 5, seed=1), torch.arange(40) % 2 == torch.tensor([[0], [1]])
    both = log_density(points, bank, torch.tensor([0.5, 2.0]), member)
    assert both[0] == pytest.approx(float(log_density(points[:1], bank[::2], 0.5)))
    assert both[1] == pytest.approx(float(log_density(points[1:], bank[1::2], 2.0)))


def test_leave_one_out_equals_scikit_learn_refitted() -> None:
    bank = draw(30, 4)
    rows = bank.numpy()
    expected = [KernelDensity(bandwidth=0.6).fit(np.delete(rows, i, 0)).score_samples(rows[i : i + 1])[0] for i in range(30)]
    np.testing.assert_allclose(leave_one_out(bank, 0.6, chunk=7).numpy(), expected, atol=1e-9)


def test_bandwidth_is_the_likeliest() -> None:
    bank = draw(200, 3) * 4
    found = best_bandwidth(bank)
    scan = torch.logspace(-1.5, 1.5, 400, dtype=torch.float64)
    likelihood = torch.stack([leave_one_out(bank, float(h)).mean() for h in scan])
    assert found == pytest.approx(float(scan[likelihood.argmax()]), rel=0.03)
    assert best_bandwidth(bank * 100) == pytest.approx(100 * found, rel=0.03)


def test_distances_far_from_the_origin_keep_their_digits() -> None:
    a = draw(20, 8, dtype=torch.float32) + 1000
    exact = torch.cdist(a.double(), a.double()).square()
    assert torch.allclose(square_distances(a, a).double(), exact, atol=1e-2)


def test_bad_banks_are_named() -> None:
    with pytest.raises(ValueError, match="bandwidth must be positive, got 0"):
        log_density(draw(2, 3), draw(4, 3), 0.0)
    with pytest.raises(ValueError, match="points and bank must have shapes"):
        log_density(draw(2, 3), draw(4, 2), 1.0)
    with pytest.raises(ValueError, match="member must hold"):
        log_density(draw(2, 3), draw(4, 3), 1.0, torch.zeros(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        best_bandwidth(draw(1, 3))
    with pytest.raises(ValueError, match="samples that differ, got 5"):
        best_bandwidth(torch.ones(5, 3))


def two_classes(count: int, seed: int) -> Samples:
    """Class 0 is tight and class 1 wide, in all pixels but the first."""
    labels = torch.arange(count) % 2
    spread = torch.where(labels == 0, 0.01, 0.08)[:, None, None, None]
    images = 0.5 + spread * draw(count, 1, 4, 4, seed=seed, dtype=torch.float32)
    images[:, 0, 0, 0] = torch.where(labels == 0, 0.2, 0.8)
    return Samples(images.clamp(0, 1), labels)


def test_scorer_reads_the_density_of_the_predicted_class() -> None:
    clean, fresh = two_classes(200, 0), two_classes(40, 1)
    scorer = KDE().fit(Split(), clean)
    assert scorer.layers == ("head@input",)
    flat = fresh.images.flatten(1)
    for label in (0, 1):
        own = clean.images[clean.labels == label].flatten(1).double().numpy()
        width = float(scorer.bandwidth[label])
        expected = KernelDensity(bandwidth=width, leaf_size=1000).fit(own).score_samples(flat.double().numpy())
        raw = scorer.log_density(flat, torch.full((40,), label))
        np.testing.assert_allclose(raw.detach().numpy(), expected, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(width, best_bandwidth(torch.from_numpy(own)), rtol=0.03)
    own_class = scorer.log_density(flat, fresh.labels)
    expected_scores = (scorer.mean - own_class[:, None])[range(40), fresh.labels] / scorer.std[fresh.labels]
    assert torch.allclose(scorer(fresh.images), expected_scores)


def test_classes_of_different_spread_share_a_scale() -> None:
    """Fresh clean images of either class score around zero with spread one, although their densities differ by far."""
    scorer, fresh = KDE().fit(Split(), two_classes(400, 0)), two_classes(400, 1)
    scores = scorer(fresh.images)
    for label in (0, 1):
        own = scores[fresh.labels == label]
        assert abs(float(own.mean())) < 0.5
        assert 0.5 < float(own.std()) < 2
    assert float(scorer.mean[0] - scorer.mean[1]) > 20
    assert 0.4 < auroc(scores, fresh.labels == 1) < 0.6


def test_inputs_of_the_wrong_class_score_high() -> None:
    clean, fresh = two_classes(200, 0), two_classes(100, 1)
    scorer = KDE().fit(Split(), clean)
    forged = fresh.images.clone()
    forged[:, 0, 0, 0] = 0.2  # called class 0; the odd half has the spread of class 1
    assert auroc(scorer(forged), fresh.labels == 1) > 0.999


def test_classes_with_few_images_use_everyone() -> None:
    clean = two_classes(200, 0)
    few = clean[torch.cat([(clean.labels == 0).nonzero()[:, 0], (clean.labels == 1).nonzero()[:3, 0]])]
    scorer = KDE().fit(Split(), few)
    assert scorer.member.sum(1).tolist() == [100, 103]
    assert bool(torch.isfinite(scorer(two_classes(50, 1).images)).all())
    alone = KDE().fit(Split(), clean[clean.labels == 0])
    assert bool(torch.isfinite(alone(two_classes(50, 1).images)).all())


def test_far_inputs_stay_finite_and_keep_their_gradients() -> None:
    scorer = KDE(bandwidth=1e-3).fit(Split(), two_classes(60, 0))
    images = torch.zeros(3, 1, 4, 4, requires_grad=True)
    scores = scorer(images)
    (gradient,) = torch.autograd.grad(scores.sum(), images)
    assert bool(torch.isfinite(scores).all()) and math.isfinite(float(gradient.sum()))
    assert float(gradient.abs().sum()) > 0


def test_duplicated_class_still_has_a_bandwidth() -> None:
    clean = two_classes(100, 0)
    images = clean.images.clone()
    images[clean.labels == 0] = clean.images[0].clone()
    assert bool(torch.isfinite(KDE().fit(Split(), Samples(images, clean.labels))(clean.images)).all())


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="bandwidth must be positive and finite, got -1"):
        KDE(bandwidth=-1.0)
    with pytest.raises(ValueError, match="least must be at least 2, got 1"):
        KDE(least=1)
    with pytest.raises(ValueError, match="clean must hold at least 5 images, got 4"):
        KDE().fit(Split(), two_classes(4, 0))
    odd = Samples(two_classes(20, 0).images, torch.arange(20) % 3)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 2\), as many as the model has logits, got 2"):
        KDE().fit(Split(), odd)
