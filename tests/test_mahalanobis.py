"""Covariances equal scikit-learn's, distances are the closed form, and each clean image is judged as if it had not been there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor, nn

from mithridate.analysis.projection import shrunk_covariance
from mithridate.analysis.reference import weighed
from mithridate.data import Samples
from mithridate.defenses.detectors.mahalanobis import Mahalanobis, _describe
from mithridate.metrics import auroc
from mithridate.nn.taps import roughness, trace, trace_all


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Flat(nn.Module):
    """Two convolutions and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1), nn.Linear(4, 2)
        with torch.no_grad():
            self.first.weight.copy_(draw(6, 1, 3, 3, seed=3))
            self.second.weight.copy_(draw(4, 6, 3, 3, seed=5))
            self.head.weight.copy_(draw(2, 4, seed=4))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3)))
        return logits


class Gray(Flat):
    """Reads the first of three channels."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, :1])


def smooth(count: int, seed: int = 0) -> Samples:
    """Images of large spots."""
    coarse = torch.rand(count, 1, 3, 3, generator=torch.Generator().manual_seed(seed))
    images = nn.functional.interpolate(coarse, (12, 12), mode="bilinear")
    return Samples(images, (coarse.mean((1, 2, 3)) > 0.5).long(), ("dark", "bright"))


@pytest.mark.parametrize(("rows", "width"), [(500, 4), (30, 20), (20, 60)])
def test_covariance_equals_scikit_learn(rows: int, width: int) -> None:
    points = draw(rows, width) @ draw(width, width, seed=1)
    expected, share = ledoit_wolf(points.numpy(), assume_centered=True)
    found, shrunk = shrunk_covariance(points)
    assert shrunk == pytest.approx(share)
    np.testing.assert_allclose(found.numpy(), expected)


@pytest.mark.parametrize("rows", [torch.zeros(5, 3), torch.zeros(0, 3), torch.ones(3)])
def test_covariance_needs_rows_that_differ(rows: Tensor) -> None:
    with pytest.raises(ValueError, match="rows must have shape"):
        shrunk_covariance(rows)


def test_whitened_distances_are_those_by_the_inverse() -> None:
    points, labels = draw(60, 5) * torch.tensor([1, 10, 0.1, 3, 1]), torch.arange(60) % 3
    mean, whitening, _ = _describe(points, labels, labels == torch.arange(3)[:, None])
    scale = points.std(0)
    inverse = torch.linalg.inv(shrunk_covariance((points - mean[labels]) / scale)[0])
    expected = [float(row @ inverse @ row) for row in (points - mean[1]) / scale]
    found = ((points - mean[1]) @ whitening.view(5, 5)).square().sum(1)
    assert found.tolist() == pytest.approx(expected)


def test_what_is_usual_is_what_images_left_out_one_by_one_would_have() -> None:
    """Means and covariance are made again without each image; only the scale and how far to shrink are those of all."""
    points, labels = draw(40, 6), torch.arange(40) % 2
    points = points / points.std(0)
    member = labels == torch.arange(2)[:, None]
    mean, _, usual = _describe(points, labels, member)
    apart, shrunk = points - mean[labels], shrunk_covariance(points - mean[labels])[1]
    eye = shrunk * float(apart.square().mean()) * torch.eye(6, dtype=torch.float64)
    logs = []
    for i in range(40):
        others = torch.arange(40) != i
        own = points[i] - points[others & (labels == labels[i])].mean(0)
        rest = apart.T @ apart / 40 - torch.outer(own, own) / 40
        logs.append(float(own @ torch.linalg.inv((1 - shrunk) * rest + eye) @ own))
    values = np.log(logs)
    assert usual.tolist() == pytest.approx([values.mean(), values.std(ddof=1)], rel=0.02)


def test_roughness_is_the_root_mean_square_step() -> None:
    board = torch.tensor([[0.0, 3.0], [4.0, 0.0]])[None, None]
    assert float(roughness(board)) == pytest.approx(((9 + 16 + 16 + 9) / 4) ** 0.5)
    assert float(roughness(torch.ones(2, 3, 4, 5)).max()) < 1e-15
    single, tokens = draw(2, 3, 1, 1), draw(2, 7, 3)
    assert torch.equal(roughness(single), single.flatten(1))
    assert torch.equal(roughness(tokens), tokens.mean(1))
    flat = torch.ones(1, 2, 3, 3, requires_grad=True)
    roughness(flat).sum().backward()
    assert flat.grad is not None
    assert bool(torch.isfinite(flat.grad).all())


def test_the_tap_reads_the_roughness_of_a_layer() -> None:
    model, images = Flat(), smooth(3).images
    seen = trace(model, images, ("first@rough", "first@raw", "@input@rough"))
    torch.testing.assert_close(seen.activations["first@rough"], roughness(seen.activations["first@raw"]))
    torch.testing.assert_close(seen.activations["@input@rough"], roughness(images))


def test_default_layers_are_means_and_roughness_of_what_goes_into_layers() -> None:
    model, clean = Flat(), smooth(60)
    assert weighed(model, clean.images[:8], 8, ("", "")) == ("@input", "second@input", "head@input")
    assert Mahalanobis().fit(model, clean).layers == ("@input@rough", "@input", "second@input@rough", "second@input", "head@input")


def test_a_faint_tint_is_seen_where_clean_images_are_gray() -> None:
    """A twentieth of the range of brightness, in a direction in which no clean image differs from another."""
    clean, fresh = (Samples(made.images.expand(-1, 3, -1, -1), made.labels, made.classes) for made in (smooth(200), smooth(200, seed=1)))
    scorer = Mahalanobis(layers=("@input",)).fit(Gray(), clean)
    tint = 0.05 * torch.tensor([1.0, -1.0, 0.0])[:, None, None]
    with torch.no_grad():
        usual, strange = scorer(fresh.images), scorer((fresh.images + tint).clamp(0, 1))
    assert auroc(torch.cat([usual, strange]), torch.arange(400) >= 200) > 0.99
    assert float(usual.median()) < 1


def test_scores_are_those_of_the_strangest_layer() -> None:
    model, clean = Flat(), smooth(100)
    scorer = Mahalanobis().fit(model, clean)
    seen = trace_all(model, smooth(20, seed=1), scorer.layers)
    logs = scorer.log_distances(seen, seen.predicted)
    table = torch.stack([(logs[:, i] - scorer.usual[i, 0]) / scorer.usual[i, 1] for i in range(len(scorer.layers))], 1)
    torch.testing.assert_close(scorer.score(seen), table.max(1).values)
    assert len(set(table.argmax(1).tolist())) > 1


@pytest.mark.parametrize(("samples", "said"), [(smooth(100)[:4], "at least 5 images, got 4"), (smooth(100)[[0] * 30], "that differ")])
def test_images_that_tell_nothing_are_refused(samples: Samples, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Mahalanobis().fit(Flat(), samples)


def test_fields_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="depth must"):
        Mahalanobis(depth=1)
    with pytest.raises(ValueError, match="least must"):
        Mahalanobis(least=1)
    with pytest.raises(ValueError, match="reference must"):
        Mahalanobis(reference=4)
