"""Spectral signatures against numpy, ART and a planted low-rank poison; and the automatic cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mithridate.analysis.outliers_1d import split, suspicious
from mithridate.analysis.spectral import projections, second_population, signature
from mithridate.data import Samples
from mithridate.defenses.screens.spectral_signature import SpectralSignature
from mithridate.metrics import auroc


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Pixels(nn.Module):
    """Features are the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.head = nn.Flatten(), nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flat(x))


def planted(rate: float, seed: int = 0, classes: int = 5, each: int = 300) -> tuple[Samples, Tensor]:
    """Gaussian classes of different size; in class 2 a share `rate` is shifted along one direction."""
    labels = torch.arange(classes * each) % classes
    features = 0.5 + 0.02 * draw(len(labels), 64, seed=seed) * (1 + labels[:, None])
    poisoned = (labels == 2) & (torch.rand(len(labels), generator=torch.Generator().manual_seed(seed)) < rate)
    direction = draw(64, seed=99)
    features[poisoned] += 0.5 * direction / direction.norm()
    return Samples(features.view(-1, 1, 8, 8).clamp(0, 1), labels), poisoned


@pytest.mark.parametrize("shape", [(50, 8), (8, 50), (40, 40), (1, 5), (2, 3)])
def test_signature_equals_numpy(shape: tuple[int, int]) -> None:
    features = 3 + draw(*shape).numpy().astype(np.float64)
    centered = features - features.mean(0)
    top = np.linalg.svd(centered, full_matrices=False)[2][0]
    np.testing.assert_allclose(signature(torch.from_numpy(features)).numpy(), (centered @ top) ** 2, atol=1e-9)


def test_projections_are_singular_values_times_left_vectors() -> None:
    for shape in ((30, 6), (6, 30)):
        features = draw(*shape).double()
        u, s, _ = torch.linalg.svd(features - features.mean(0), full_matrices=False)
        assert torch.allclose(projections(features, 4).abs(), (u * s)[:, :4].abs(), atol=1e-8)
    assert projections(draw(3, 2), 4).shape == (3, 4)


@pytest.mark.filterwarnings("ignore")
def test_signature_equals_art() -> None:
    """ART projects features that it has not centered; on centered ones its score is the square root of ours."""
    poison = pytest.importorskip("art.defences.detector.poison", reason="ART is not installed", exc_type=ImportError)
    features = draw(100, 20)
    theirs = poison.SpectralSignatureDefense.spectral_signature_scores((features - features.mean(0)).numpy())[:, 0]
    np.testing.assert_allclose(signature(features).numpy(), theirs**2, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rate", [0.03, 0.1, 0.3])
def test_planted_poison_is_ranked_first_and_cut_off(rate: float) -> None:
    samples, poisoned = planted(rate)
    scores = SpectralSignature().screen(Pixels(), samples)
    assert auroc(scores, poisoned) > 0.99
    cuts = [second_population(samples.images.flatten(1), samples.labels)] + ([suspicious(scores, samples.labels)] if rate < 0.2 else [])
    for flagged in cuts:
        assert float(flagged[poisoned].float().mean()) > 0.9
        assert float(flagged[~poisoned].float().mean()) < 0.01


@pytest.mark.parametrize("rate", [0.45, 0.55])
def test_half_poisoned_class_is_cut_on_its_wider_side(rate: float) -> None:
    samples, poisoned = planted(rate)
    features = samples.images.flatten(1)
    features[poisoned] += 0.05 * draw(int(poisoned.sum()), 64, seed=5)
    flagged = second_population(features, samples.labels)
    assert float((flagged == poisoned).float().mean()) > 0.99


def test_scores_of_clean_classes_share_a_scale() -> None:
    samples, _ = planted(0.0)
    scores = SpectralSignature().screen(Pixels(), samples)
    for label in range(5):
        assert float(scores[samples.labels == label].mean()) == pytest.approx(1.0, rel=0.2)
    assert 0.4 < auroc(scores, samples.labels == 4) < 0.6


def test_almost_nothing_is_cut_off_where_nothing_was_planted() -> None:
    normal = torch.cat([signature(draw(500, 16, seed=s)) for s in range(40)])
    heavy = torch.cat([signature(draw(500, 16, seed=s) ** 3) for s in range(40)])
    skewed = torch.cat([signature(draw(500, 16, seed=s).relu()) for s in range(40)])
    labels = torch.arange(40).repeat_interleave(500)
    for scores in (normal, heavy, skewed):
        assert float(suspicious(scores, labels).float().mean()) < 0.005
    for change in (torch.clone, torch.relu, lambda t: t**3):
        features = change(torch.cat([draw(500, 16, seed=s) for s in range(40)]))
        assert float(second_population(features, labels).float().mean()) < 0.005


def test_split_finds_the_valley() -> None:
    values = torch.cat([draw(900), 8 + draw(100, seed=1)])
    cut = split(values)
    assert cut is not None
    assert 3 < cut < 6
    assert split(draw(1000)) is None
    assert split(torch.ones(100)) is None
    assert split(torch.arange(10.0)) is None


def test_lone_and_equal_samples_score_zero() -> None:
    images = torch.cat([torch.full((6, 1, 8, 8), 0.3), torch.full((1, 1, 8, 8), 0.9)])
    scores = SpectralSignature().screen(Pixels(), Samples(images, torch.tensor([0] * 6 + [1])))
    assert torch.equal(scores, torch.zeros(7))


def test_bad_arguments_are_named() -> None:
    samples, _ = planted(0.1)
    with pytest.raises(ValueError, match="samples must not be empty"):
        SpectralSignature().screen(Pixels(), samples[:0])
    with pytest.raises(ValueError, match="layer 'fc' is not in the model"):
        SpectralSignature(layer="fc").screen(Pixels(), samples)
    with pytest.raises(ValueError, match="features must be finite"):
        signature(torch.full((3, 3), float("nan")))
    with pytest.raises(ValueError, match="features must have shape"):
        signature(torch.ones(3))
    with pytest.raises(ValueError, match=r"labels must have shape \(3,\), got \(2,\)"):
        second_population(torch.ones(3, 3), torch.ones(2))
    with pytest.raises(ValueError, match="scores and labels must both"):
        suspicious(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="scores must be finite and at least 0"):
        suspicious(-torch.ones(3), torch.ones(3))
