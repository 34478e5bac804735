"""Class paths and their likelihoods equal what is worked out by hand, or by scikit-learn, image by image."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from mithridate.analysis.reference import balanced, kept, weighed
from mithridate.analysis.switches import answer_priors, answer_surprise, switch_priors, switch_surprise, votes
from mithridate.data import Samples
from mithridate.defenses.detectors.activation_space import ActivationSpace
from mithridate.metrics import auroc
from mithridate.nn.models import MODELS
from mithridate.nn.taps import last_hidden, trace_all

LAYERS = ("@input@raw", "first", "second")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Deep(nn.Module):
    """Three random linear layers on four pixels, and a head that reads the first pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 2)
        with torch.no_grad():
            for seed, layer in enumerate((self.first, self.second, self.head)):
                layer.weight.copy_(draw(*layer.weight.shape, seed=seed))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.tanh(self.second(torch.tanh(self.first(x.flatten(1))))))
        return logits


def pixels(count: int, seed: int) -> Samples:
    images = torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(seed))
    return Samples(images, (images.flatten(1)[:, 0] > 0.5).long(), ("dark", "bright"))


def test_the_papers_likelihood_on_a_hand_computed_example() -> None:
    """Four clean images and three steps: 2, 1 and 0 of them switch, so P = 3/6, 2/6, 1/6."""
    clean = torch.tensor([[0, 1, 1, 1], [2, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    priors = switch_priors(clean)
    assert priors.tolist() == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    late, early, never = switch_surprise(torch.tensor([[2, 2, 2, 0], [0, 2, 2, 2], [1, 1, 1, 1]]), priors).tolist()
    assert late == pytest.approx(-(math.log(3 / 6) + math.log(4 / 6) + math.log(1 / 6)))
    assert early == pytest.approx(-(math.log(3 / 6) + math.log(4 / 6) + math.log(5 / 6)))
    assert never == pytest.approx(early)
    assert late == pytest.approx(math.log(18))


def test_the_likelihood_of_the_answer_on_a_hand_computed_example() -> None:
    """One layer: of four clean images three agree with their answer, so P(agree) = 4/6; class 2 is never answered."""
    given = nn.functional.one_hot(torch.tensor([[0], [0], [1], [1]]), 3).double()
    priors = answer_priors(given, torch.tensor([0, 0, 0, 1]))
    usual = 4 / 6, 1 / 6
    assert priors[0, 2].tolist() == pytest.approx([usual[1], usual[1], usual[0]])
    assert priors[0, 0].tolist() == pytest.approx([(2 + 5 * usual[0]) / 8, (1 + 5 * usual[1]) / 8, 5 * usual[1] / 8])
    assert priors[0, 1].tolist() == pytest.approx([5 * usual[1] / 6, (1 + 5 * usual[0]) / 6, 5 * usual[1] / 6])
    shares = torch.tensor([[[0.25, 0.75, 0.0]], [[0.0, 0.0, 1.0]]], dtype=torch.float64)
    found = answer_surprise(shares, torch.tensor([0, 2]), priors)
    assert found.tolist() == pytest.approx([-math.log(0.25 * (2 + 20 / 6) / 8 + 0.75 * (1 + 5 / 6) / 8), -math.log(4 / 6)])
    torch.testing.assert_close(answer_surprise(shares.repeat(1, 3, 1), torch.tensor([0, 2]), priors.repeat(3, 1, 1)), 3 * found)


def test_priors_of_votes_are_distributions() -> None:
    shares, answers = draw(50, 4, 7).softmax(2), torch.arange(50) % 6
    priors = answer_priors(shares, answers)
    assert priors.shape == (4, 7, 7)
    torch.testing.assert_close(priors.sum(2), torch.ones(4, 7))
    assert float(priors.min()) > 0
    assert answer_priors(torch.ones(3, 2, 1), torch.zeros(3, dtype=torch.long)).shape == (2, 1, 1)


def test_votes_weigh_by_closeness() -> None:
    distances, labels = torch.tensor([[1.0, 2.0, 3.0, 5.0]]), torch.tensor([[2, 0, 0, 1]])
    shares = votes(distances, labels, 3)  # closer than the fourth by 4, 3 and 2
    assert shares[0].tolist() == pytest.approx([5 / 9, 0, 4 / 9], abs=1e-5)
    assert votes(distances, labels, 3, hard=True).tolist() == [[1, 0, 0]]
    tied = torch.tensor([[2, 0, 1, 1]])
    assert votes(distances, tied, 3, hard=True).tolist() == [[0, 0, 1]]
    for alike in (0.0, 1.0, 1e20):
        torch.testing.assert_close(votes(torch.full((1, 4), alike), labels, 3), torch.tensor([[2 / 3, 0, 1 / 3]]))


def test_votes_do_not_jump_as_neighbors_come_and_go() -> None:
    before = votes(torch.tensor([[1.0, 2.0, 2.999, 3.0]]), torch.tensor([[0, 0, 1, 2]]), 3)
    after = votes(torch.tensor([[1.0, 2.0, 2.999, 3.0]]), torch.tensor([[0, 0, 2, 1]]), 3)
    assert float((before - after).abs().max()) < 1e-3


def majority(bank: np.ndarray, labels: np.ndarray, query: np.ndarray) -> list[int]:
    """By five neighbors in three principal components."""
    components = PCA(3, svd_solver="full").fit(bank)
    found: list[int] = KNeighborsClassifier(5).fit(components.transform(bank), labels).predict(components.transform(query)).tolist()
    return found


def majority_of_others(bank: np.ndarray, labels: np.ndarray) -> list[int]:
    """The same of each row among all the others, in the components of all."""
    inside, every = PCA(3, svd_solver="full").fit_transform(bank), np.arange(len(bank))
    fits = [KNeighborsClassifier(5).fit(inside[every != i], labels[every != i]) for i in every]
    return [int(fit.predict(inside[i : i + 1])[0]) for i, fit in enumerate(fits)]


def test_paths_equal_scikit_learns() -> None:
    model, clean = Deep(), pixels(60, 0)
    scorer = ActivationSpace(layers=LAYERS, rule="switches", components=3).fit(model, clean)
    known, asked = (trace_all(model, samples, scorer.layers) for samples in (clean, pixels(25, 1)))
    banks, queries = ([each.activations[layer].flatten(1).double().numpy() for layer in LAYERS] for each in (known, asked))
    labels = clean.labels.numpy()
    others = torch.tensor([*(majority_of_others(bank, labels) for bank in banks), known.predicted.tolist()]).T
    assert torch.equal(scorer.path(known, own=True), others)
    torch.testing.assert_close(scorer.priors, switch_priors(others))
    paths = torch.tensor([*(majority(bank, labels, query) for bank, query in zip(banks, queries, strict=True)), asked.predicted.tolist()]).T
    assert torch.equal(scorer.path(asked), paths)
    torch.testing.assert_close(scorer.score(asked), switch_surprise(paths, scorer.priors))


def test_labels_without_meaning_are_agreed_with_by_chance_only() -> None:
    """An image that were its own neighbor would vouch for any label."""
    clean = pixels(400, 0)
    shuffled = Samples(clean.images, clean.labels[torch.randperm(400, generator=torch.Generator().manual_seed(0))], clean.classes)
    scorer = ActivationSpace(layers=LAYERS, k=1).fit(Deep(), shuffled)
    assert float(scorer.priors.diagonal(dim1=1, dim2=2).mean()) == pytest.approx(0.5, abs=0.06)


def test_one_step_at_a_usual_depth_is_seen_by_the_answer_and_not_by_the_switches() -> None:
    """Half of the clean images switch once, between classes 0 and 1; malicious ones too, but from class 2, to which no other is alike."""
    paths = torch.tensor([[0, 0], [0, 1], [1, 1], [1, 0], [2, 2], [2, 2], [0, 0], [0, 1], [1, 1], [1, 0]]).repeat(20, 1)
    forged = torch.tensor([[2, 0]]).repeat(20, 1)
    everything, malicious = torch.cat([paths, forged]), torch.arange(220) >= 200
    assert auroc(switch_surprise(everything, switch_priors(paths)), malicious) < 0.85
    shares = nn.functional.one_hot(everything[:, :1], 3).float()
    priors = answer_priors(shares[:200], paths[:, 1])
    assert auroc(answer_surprise(shares, everything[:, 1], priors), malicious) == 1


@pytest.mark.parametrize("rule", ["answer", "switches"])
def test_classes_with_few_images_or_none_have_finite_scores(rule: Literal["answer", "switches"]) -> None:
    clean, fresh = pixels(200, 0), pixels(50, 1)
    bright = (clean.labels == 1).nonzero()[:, 0]
    for rows in (torch.cat([(clean.labels == 0).nonzero()[:2, 0], bright]), bright, bright[:7]):
        scores = ActivationSpace(layers=LAYERS, rule=rule).fit(Deep(), clean[rows])(fresh.images).detach()
        assert bool(torch.isfinite(scores).all()) and float(scores.min()) >= 0


def test_images_that_coincide_have_finite_scores() -> None:
    clean = Samples(torch.full((20, 1, 2, 2), 0.5), torch.arange(20) % 2)
    assert bool(torch.isfinite(ActivationSpace(layers=LAYERS).fit(Deep(), clean)(pixels(30, 1).images)).all())


def test_default_layers_run_from_the_images_to_the_last_hidden_one() -> None:
    model, images = MODELS["wrn_16_1"](10, 3, 16), torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    every = weighed(model, images, 100)
    assert every[0] == "@input@8x8"
    assert every[-1] == f"{last_hidden(model, images[:1])}@4x4"
    assert len(every) == 14  # two convolutions in each of six blocks, the head, and the images; projected shortcuts read what these do
    few = weighed(model, images, 5)
    assert len(few) == 5 and (few[0], few[-1]) == (every[0], every[-1])
    assert [every.index(layer) for layer in few] == sorted(every.index(layer) for layer in few)
    assert ActivationSpace(depth=3).fit(Deep(), pixels(30, 0)).layers == ("@input@8x8", "second@input@4x4", "head@input@4x4")
    assert weighed(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2), 8) == ("@input@8x8",)


def test_references_are_balanced_and_no_larger_than_asked() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 3)
    rows = balanced(labels, 23, 0)
    assert labels[rows].bincount().tolist() == [10, 10, 3]
    assert torch.equal(rows, rows.unique())
    assert torch.equal(rows, balanced(labels, 23, 0)) and not torch.equal(rows, balanced(labels, 23, 1))
    assert torch.equal(balanced(labels, 83, 0), torch.arange(83))
    scorer = ActivationSpace(layers=LAYERS, reference=40).fit(Deep(), pixels(90, 0))
    assert scorer.bank.shape[:2] == (3, 40) and scorer.labels.bincount().tolist() == [20, 20]


def test_bad_arguments_are_named() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"depth": 1}, "depth must be at least 2, got 1"),
        ({"components": 0}, "components must be at least 1, got 0"),
        ({"reference": 6}, "reference must be at least 7, got 6"),
        ({"rule": "votes"}, "rule must be 'answer' or 'switches', got 'votes'"),
    ]
    for fields, message in cases:
        with pytest.raises(ValueError, match=message):
            ActivationSpace(**fields)
    with pytest.raises(ValueError, match="clean must hold at least 7 images, got 6"):
        ActivationSpace().fit(Deep(), pixels(6, 0))
    odd = Samples(pixels(20, 0).images, torch.arange(20) % 3)
    with pytest.raises(ValueError, match="labels must be below the model's 2 logits, got 2"):
        ActivationSpace().fit(Deep(), odd)
    with pytest.raises(ValueError, match="layer 'third' is not in the model"):
        ActivationSpace(layers=("third",)).fit(Deep(), pixels(20, 0))


def test_images_beyond_the_limit_are_not_read() -> None:
    labels = torch.arange(90) % 3
    images = torch.zeros(90, 1, 4, 4)
    images[:, 0, 0, 0] = torch.linspace(0, 1, 90)
    clean = Samples(images, labels, ("a", "b", "c"))
    assert kept(clean, 90, 0) is clean
    some = kept(clean, 30, 1)
    assert some.labels.bincount().tolist() == [10, 10, 10]
    assert torch.equal(some.images, clean[balanced(labels, 30, 1)].images)
