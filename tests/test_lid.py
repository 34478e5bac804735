"""Local dimensions equal the closed form and known dimensions; the detector leaves out an image where itself is judged, only there."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mithridate.analysis.dimensionality import local_dimension, log_dimension
from mithridate.analysis.perturbed import adversarial_and_noisy
from mithridate.analysis.reference import distinct, representatives
from mithridate.data import Samples
from mithridate.defenses.detectors.lid import LID
from mithridate.metrics import auroc
from mithridate.nn.ascent import Budget
from mithridate.nn.modes import predict
from mithridate.nn.taps import trace_all
from splitting import Split


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(distances: np.ndarray) -> np.ndarray:
    """Equation 4 of Ma et al., one logarithm at a time."""
    return np.array([-1 / (sum(math.log(r / row[-1]) for r in row) / len(row)) for row in distances.astype(float)])


@pytest.mark.parametrize("k", [2, 20, 100])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_dimension_equals_the_closed_form(k: int, scale: float) -> None:
    distances = (scale * draw(50, k).abs()).sort().values
    np.testing.assert_allclose(local_dimension(distances).numpy(), by_hand(distances.numpy()), rtol=1e-6)
    nearly_equal = scale * (1 + 1e-3 * draw(50, k).abs()).sort().values
    np.testing.assert_allclose(local_dimension(nearly_equal).numpy(), by_hand(nearly_equal.numpy()), rtol=1e-6)


@pytest.mark.parametrize("dimension", [1, 2, 5, 10])
def test_uniform_balls_have_their_dimension(dimension: int) -> None:
    """The k - 1 inner log ratios at a ball's center are exponential of rate d: k / LID is d^-1 times a Gamma(k - 1) variable."""
    k, balls = 50, 2000
    points = draw(balls * k, dimension)
    radius = torch.rand(balls * k, generator=torch.Generator().manual_seed(1)) ** (1 / dimension)
    ball = (points * (radius / points.norm(dim=1))[:, None]).reshape(balls, k, dimension)
    found = local_dimension(ball.norm(dim=2).sort().values)
    assert float(found.mean()) == pytest.approx(dimension * k / (k - 2), rel=4 / math.sqrt(k * balls))
    expected = math.log(dimension * k) - float(torch.digamma(torch.tensor(k - 1.0)))
    assert float(found.log().mean()) == pytest.approx(expected, abs=4 / math.sqrt(k * balls))


def test_dimension_is_of_the_manifold_and_not_of_the_space() -> None:
    plane = draw(2000, 2) @ draw(2, 40, seed=1)
    found = log_dimension(plane, plane, 40, own=True).exp()
    assert float(found.median()) == pytest.approx(2, rel=0.1)


def test_degenerate_neighbors_stay_finite_and_have_gradients() -> None:
    distances = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0], [0.5, 0.7, 1.0]], requires_grad=True)
    found = local_dimension(distances)
    assert found[0] < found[1] < found[3] < found[2]
    found.log().sum().backward()
    assert distances.grad is not None and bool(torch.isfinite(distances.grad).all())
    assert bool((distances.grad[3] != 0).all())
    bank = draw(30, 4)
    points = torch.cat([bank[:2], bank.mean(0, keepdim=True)]).requires_grad_()
    (gradient,) = torch.autograd.grad(log_dimension(points, bank, 5).sum(), points)
    assert bool(torch.isfinite(gradient).all()) and float(gradient[2].abs().sum()) > 0


def test_gradients_equal_finite_differences() -> None:
    bank, points = draw(30, 4).double(), draw(3, 4, seed=1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: log_dimension(x, bank, 6), (points,))


def test_too_few_neighbors_are_named() -> None:
    with pytest.raises(ValueError, match=r"distances must have shape \(m, k\) with k >= 2, got \(3, 1\)"):
        local_dimension(torch.ones(3, 1))


def test_layers_that_say_the_same_count_once() -> None:
    first, last = draw(6, 4), draw(6, 3)
    assert distinct({"a": first, "b": last, "b again": last + 1e-9, "c": first[:, :3]}) == ("a", "b again", "c")


def test_small_classes_are_represented_by_all() -> None:
    found = representatives(torch.tensor([0, 0, 0, 1]), 3, 2)
    assert found.tolist() == [[True, True, True, False], [True] * 4, [True] * 4]
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 1\), as many as the model has logits, got 1"):
        representatives(torch.tensor([0, 1]), 1, 2)


def two_classes(count: int, seed: int) -> Samples:
    """Class 0 lies on a line and class 1 in eight dimensions, in all pixels but the first."""
    labels = torch.arange(count) % 2
    line, volume = draw(count, 1, seed=seed) * draw(1, 15, seed=99), draw(count, 8, seed=seed + 1) @ draw(8, 15, seed=98) / 8**0.5
    images = 0.5 + 0.08 * torch.cat([torch.zeros(count, 1), torch.where(labels[:, None] == 0, line, volume)], 1)
    images[:, 0] = torch.where(labels == 0, 0.3, 0.7)
    return Samples(images.reshape(count, 1, 4, 4).clamp(0, 1), labels)


@pytest.mark.parametrize("conditional", [False, True])
def test_score_equals_the_formula_on_scikit_learns_neighbors(conditional: bool) -> None:
    from sklearn.neighbors import NearestNeighbors

    clean, fresh = two_classes(200, 0), two_classes(40, 7)
    scorer = LID(k=12, conditional=conditional).fit(Split(), clean)
    assert scorer.layers == ("head@input",)

    def logs(points: np.ndarray, bank: np.ndarray, *, within: bool) -> np.ndarray:
        found, _ = NearestNeighbors(n_neighbors=12 + within, algorithm="brute").fit(bank).kneighbors(points)
        return np.log(by_hand(found[:, within:]))

    bank, points = clean.images.flatten(1).double().numpy(), fresh.images.flatten(1).double().numpy()
    expected = np.zeros(40)
    for label in (0, 1):
        own, asked = clean.labels.numpy() == label, fresh.labels.numpy() == label
        usual = logs(bank[own], bank[own], within=True) if conditional else logs(bank, bank, within=True)[own]
        found = logs(points[asked], bank[own] if conditional else bank, within=False)
        expected[asked] = (found - usual.mean()) / usual.std(ddof=1)
    np.testing.assert_allclose(scorer(fresh.images).numpy(), expected, atol=1e-3)


def test_an_image_is_left_out_only_where_it_was_asked_for() -> None:
    """A deployed scorer that sees an image of its reference finds it there, at distance zero; a copy of it does not lose a neighbor."""
    clean, model = two_classes(200, 0), Split()
    scorer, seen = LID(k=12).fit(model, clean), trace_all(model, clean, ("head@input",))
    left_out = scorer.standardized(seen, own=True)[:, 0]
    assert float((scorer(clean.images) - left_out).max()) < 0
    others = torch.arange(200) != 7
    without = LID(k=12).fit(model, clean[others]).log_dimensions(trace_all(model, clean[7:8], ("head@input",)), clean.labels[7:8])
    torch.testing.assert_close(scorer.log_dimensions(seen, clean.labels, own=True)[7:8], without)
    for label in (0, 1):
        assert float(left_out[clean.labels == label].mean()) == pytest.approx(0, abs=1e-4)
        assert float(left_out[clean.labels == label].std()) == pytest.approx(1, abs=1e-4)


def test_classes_of_different_dimension_share_a_scale() -> None:
    scorer, fresh = LID().fit(Split(), two_classes(400, 0)), two_classes(400, 7)
    scores = scorer(fresh.images)
    assert float(scorer.mean[1] - scorer.mean[0]) > 1, "log dimensions of the classes themselves differ by far"
    assert int(scorer.k) == 20
    assert 0.4 < auroc(scores, fresh.labels == 1) < 0.6
    assert 0.5 < float(scores.std()) < 2


@pytest.mark.parametrize("conditional", [False, True])
def test_inputs_off_the_clean_ones_score_high(conditional: bool) -> None:
    clean, fresh = two_classes(200, 0), two_classes(100, 7)
    scorer = LID(conditional=conditional).fit(Split(), clean)
    forged = fresh.images.clone()
    forged[:, :, -1, -1] += 2 * (forged[:, :, -1, -1] < 0.5) - 1.0
    assert auroc(torch.cat([scorer(fresh.images), scorer(forged)]), torch.arange(200) >= 100) > 0.99


def test_classes_with_few_images_use_everyone() -> None:
    clean = two_classes(200, 0)
    few = clean[torch.cat([(clean.labels == 0).nonzero()[:, 0], (clean.labels == 1).nonzero()[:5, 0]])]
    scorer = LID(k=8, conditional=True).fit(Split(), few)
    assert scorer.member.sum(1).tolist() == [100, 105]
    assert bool(torch.isfinite(scorer(two_classes(50, 7).images)).all())
    assert len(LID(k=8).fit(Split(), few).member) == 0


def test_every_copy_is_as_far_as_its_adversarial_example() -> None:
    clean, model = two_classes(60, 0), Split()
    made, noisy, fooled = adversarial_and_noisy(model, clean, Budget(eps=0.3), torch.Generator().manual_seed(0), batch_size=17)
    assert torch.equal(fooled, predict(model, made).argmax(1) != clean.labels)
    moved = (made - clean.images).flatten(1).norm(dim=1)
    torch.testing.assert_close((noisy - clean.images).flatten(1).norm(dim=1), moved, rtol=0.05, atol=0)
    assert 0 <= float(noisy.min()) <= float(noisy.max()) <= 1


def test_supervised_weights_are_those_of_scikit_learn_and_tell_unseen_attacks() -> None:
    """Learned on steps through all pixels that stop at the boundary; asked about a replaced patch."""
    from sklearn.linear_model import LogisticRegression

    clean, fresh, model = two_classes(300, 0), two_classes(100, 7), Split()
    with torch.no_grad():
        model.head.weight[1, 1:] = 5 * draw(15, seed=3)
        model.head.bias[1] -= 0.5 * model.head.weight[1, 1:].sum()
    plain, scorer = LID().fit(model, clean), LID(supervised=True, eps=0.3).fit(model, clean, seed=4)
    made, noisy, fooled = adversarial_and_noisy(model, clean, Budget(eps=0.3, early_exit=True), torch.Generator().manual_seed(4))
    works = fooled & (predict(model, clean).argmax(1) == clean.labels)
    parts = [plain.standardized(trace_all(model, x, plain.layers), own=True) for x in (clean.images, noisy, made)]
    rows, truth = torch.cat([*parts[:2], parts[2][works]]), torch.arange(600 + int(works.sum())) >= 600
    expected = LogisticRegression(class_weight="balanced").fit(rows.numpy(), truth.numpy()).decision_function(rows.numpy())
    np.testing.assert_allclose((rows @ scorer.weight + scorer.bias).numpy(), expected, atol=1e-4)
    forged = fresh.images.clone()
    forged[:, :, -1, -1] = 1 - forged[:, :, -1, -1].round()
    assert auroc(torch.cat([scorer(fresh.images), scorer(forged)]), torch.arange(200) >= 100) > 0.9


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="k must be at least 2, got 1"):
        LID(k=1)
    with pytest.raises(ValueError, match=r"eps must lie in \(0, 1\], got 0"):
        LID(eps=0.0)
    with pytest.raises(ValueError, match="clean must hold at least 31 images, got 30"):
        LID(k=30).fit(Split(), two_classes(30, 0))
    with pytest.raises(ValueError, match="eps must be large enough to fool the model, got 0.001"):
        LID(supervised=True, eps=0.001).fit(Split(), two_classes(60, 0))
    odd = Samples(two_classes(60, 0).images, torch.arange(60) % 3)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 2\), as many as the model has logits, got 2"):
        LID().fit(Split(), odd)
