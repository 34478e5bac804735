"""Mutants are run as the paper runs copies, both tails stand out at one level, and the sequential test only saves mutants."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from mithridate.analysis.sensitivity import Mutants, Trial, sensitivity
from mithridate.analysis.sequential import bounds
from mithridate.analysis.two_sided import class_quantiles, deviation, scale
from mithridate.calibrate import threshold
from mithridate.data import Samples
from mithridate.defenses.detectors.mutation import Mutation, MutationScorer
from mithridate.metrics import auroc
from mithridate.nn.mutants import OPERATORS, mutate
from mithridate.nn.suffix import Suffix
from mithridate.nn.taps import trace


class Clusters(nn.Module):
    """Class c has its pixels c and c + 8 bright; two dense layers read them."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.one, self.act, self.two = nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            given, labels = images(800, 1).flatten(1), torch.arange(800) % 4
            for layer in (self.one, self.two):
                nn.init.normal_(layer.weight, std=0.3)
            optimizer = torch.optim.Adam(self.parameters(), 0.01)
            for _ in range(60):
                optimizer.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(self.two(self.act(self.one(given))), labels).backward()
                optimizer.step()

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.act(self.one(self.flat(x))))


def images(count: int, seed: int, strength: float | None = None) -> Tensor:
    """Of class i % 4, with a margin that varies as much as is usual, or with the given one."""
    draw = torch.Generator().manual_seed(seed)
    pixels = 0.3 + 0.08 * torch.randn(count, 16, generator=draw)
    label, margin = torch.arange(count) % 4, 0.25 + 0.1 * torch.rand(count, generator=draw) if strength is None else strength
    for pixel in (label, label + 8):
        pixels[torch.arange(count), pixel] += margin
    return pixels.clamp(0, 1).view(count, 1, 4, 4)


def samples(count: int, seed: int = 2) -> Samples:
    return Samples(images(count, seed), torch.arange(count) % 4)


MODEL = Clusters()
STEPS = {"fuzz": 0.05, "gf": 0.06, "ws": 0.08, "nai": 0.1, "ns": 0.2}  # shares of few neurons come in steps


def fitted(**fields: object) -> MutationScorer:
    return Mutation(**fields).fit(MODEL, samples(600))  # type: ignore[arg-type]


@torch.no_grad()
def naive(scorer: MutationScorer, given: Tensor) -> Tensor:
    """Logits of a copy of the model for each mutant."""
    answers = []
    for seed in scorer.seeds.tolist():
        twin = copy.deepcopy(MODEL)
        state = {f"{layer}.{kind}": getattr(getattr(twin, layer), kind) for layer in ("one", "two") for kind in ("weight", "bias")}
        for name, weight in mutate(list(OPERATORS)[int(scorer.operator)], state, float(scorer.level), seed).items():
            state[name].copy_(weight)
        answers.append(twin(given))
    return torch.stack(answers)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("statistic", ["odds", "rate"])
@torch.no_grad()
def test_scores_are_those_of_mutated_copies(operator: str, statistic: str) -> None:
    scorer, fresh = fitted(operator=operator, statistic=statistic, mutants=30), images(40, 3)
    answers, label = naive(scorer, fresh), MODEL(fresh).argmax(1)
    rate = (answers.argmax(2) != label).float().mean(0)
    p = answers.double().softmax(2).gather(2, label.expand(30, -1)[..., None])[..., 0]
    odds = ((1 - p).sum(0) / p.sum(0)).log()
    found = scorer.watch(trace(MODEL, fresh, scorer.layers))
    assert torch.equal(found.rate, rate)
    assert torch.allclose(found.odds.double(), odds, atol=1e-3)
    assert found.used.tolist() == [30] * 40
    value = torch.log((30 * rate + 0.5) / (30.5 - 30 * rate)) if statistic == "rate" else odds
    side = value - scorer.scales[0, label]
    expected = torch.where(side > 0, side / scorer.scales[2, label], -side / scorer.scales[1, label])
    assert torch.allclose(scorer(fresh).double(), expected.double(), atol=1e-2)


@torch.no_grad()
def test_rate_under_noise_is_the_normal_tail_of_the_margin() -> None:
    """One layer, two classes, noise s on every weight: the logit margin m of features z is moved by N(0, 2 s^2 |z|^2)."""
    head = nn.Linear(16, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.randn(2, 16, generator=torch.Generator().manual_seed(0)))
    model = nn.Sequential(nn.Flatten(), head)
    given = images(20, 1)
    seen = trace(model, given, ("1@input@raw",))
    found = sensitivity(
        Mutants(Suffix.of(model, ("1@input@raw",)), "fuzz", 0.8, torch.arange(4000), together=True), seen.images.flatten(1), seen.predicted
    )
    margin = (seen.logits[:, 0] - seen.logits[:, 1]).abs()
    noise = 0.8 * float(head.weight.std(correction=0)) * math.sqrt(2) * given.flatten(1).norm(dim=1)
    expected = torch.special.ndtr(-(margin / noise).double())
    assert 0.02 < float(expected.min()) < 0.3
    assert torch.allclose(found.rate.double(), expected, atol=4 * 0.5 / math.sqrt(4000))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("change", [0.15, 0.3])
def test_a_mutant_changes_the_share_of_clean_labels_asked_for(operator: str, change: float) -> None:
    scorer = fitted(operator=operator, change=change)
    found = scorer.watch(trace(MODEL, images(400, 5), scorer.layers)).rate.mean()
    assert float(found) == pytest.approx(change, abs=STEPS[operator])
    assert float(Mutation(operator="ws", level=0.25).fit(MODEL, samples(100)).level) == 0.25


@torch.no_grad()
@pytest.mark.parametrize(("statistic", "sequential"), [("odds", False), ("odds", True), ("rate", False)])
def test_one_set_of_mutants_and_one_threshold_serve_both_tails(statistic: str, sequential: bool) -> None:
    """Inputs that hardly are their class change more, those with all of it and more change less."""
    scorer = fitted(statistic=statistic, sequential=sequential)
    clean = scorer(images(400, 6))
    cut = threshold(scorer(images(400, 8)), 0.05)
    for strength in (0.12, 0.7):
        odd = scorer(images(400, 7, strength))
        assert auroc(torch.cat([clean, odd]), torch.arange(800) >= 400) > 0.8
        assert float(cut.flag(odd).float().mean()) > 0.3
    assert float(cut.flag(clean).float().mean()) < 0.1


@torch.no_grad()
def test_sequential_test_stops_early_and_changes_nothing_else() -> None:
    """Each input's rate and odds are those of as many mutants, from the first, as it needed."""
    scorer, fresh = fitted(sequential=True), torch.cat([images(100, 6), images(50, 7, 0.1), images(50, 7, 0.7)])
    found, label = scorer.watch(trace(MODEL, fresh, scorer.layers)), MODEL(fresh).argmax(1)
    answers = naive(scorer, fresh)
    for i, used in enumerate(found.used.tolist()):
        own = answers[:used, i]
        assert float(found.rate[i]) == pytest.approx(float((own.argmax(1) != label[i]).float().mean()), abs=1e-6)
        p = own.double().softmax(1)[:, label[i]]
        assert float(found.odds[i]) == pytest.approx(float(((1 - p).sum() / p.sum()).log()), abs=1e-3)
    assert float(found.used[:100].float().mean()) < 50
    assert int(found.used.min()) >= 5 and set((found.used % 5).tolist()) == {0}
    together = scorer(fresh)
    assert torch.allclose(torch.cat([scorer(fresh[i : i + 1]) for i in range(20)]), together[:20], atol=1e-4)


@torch.no_grad()
def test_sequential_test_is_walds_on_the_clean_rates() -> None:
    scorer = fitted(sequential=True, alpha=0.02, beta=0.1)
    assert torch.allclose(scorer.limits, torch.tensor(bounds(0.02, 0.1)))
    plain, clean = fitted(change=0.3), samples(600)
    seen = trace(MODEL, clean.images, plain.layers)
    rate = plain.watch(seen).rate
    for label in range(4):
        median = float(rate[seen.predicted == label].quantile(0.5))
        assert float(scorer.rates[2, label]) == pytest.approx(median, abs=1e-5)
        assert float(scorer.rates[0, label]) < median < float(scorer.rates[3, label])
    again = Trial.of(plain.watch(seen), seen.predicted, (0.02, 0.1), classes=4, least=20)
    assert torch.allclose(again.rates, scorer.rates)


def test_what_counts_changes_mutates_more_strongly() -> None:
    assert float(fitted().level) < float(fitted(statistic="rate").level) == float(fitted(sequential=True).level)


def test_gradients_of_the_rate_are_those_of_the_odds() -> None:
    """So that an attacker who follows them is not held up by a rate that is flat almost everywhere."""
    given, found = images(8, 3).requires_grad_(), {}
    scorer = fitted(statistic="rate", mutants=20)
    seen = trace(MODEL, given, scorer.layers)
    for name in ("odds", "rate_odds"):
        (found[name],) = torch.autograd.grad(getattr(scorer.watch(seen), name).sum(), given, retain_graph=True)
    assert torch.equal(found["odds"], found["rate_odds"])
    assert float(found["odds"].flatten(1).abs().sum(1).min()) > 0


def test_deviations_are_normal_ones_on_either_side_of_each_class() -> None:
    draw = torch.randn(20000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    label = torch.arange(20000) % 2
    values = torch.where(draw > 0, draw * 3, draw) * torch.where(label == 0, 1.0, 10.0) + 5 * label
    scales = scale(values, label, classes=2, least=20)
    assert torch.allclose(scales, torch.tensor([[0.0, 5.0], [1.0, 10.0], [3.0, 30.0]], dtype=torch.float64), rtol=0.05, atol=0.5)
    found = deviation(values, label, scales)
    assert float(found.min()) >= 0
    for c in (0, 1):
        assert float((found[label == c] > 2).double().mean()) == pytest.approx(0.0455, abs=0.01)
    constant = scale(torch.ones(30), torch.zeros(30), classes=1, least=2)
    flat = deviation(torch.tensor([1.0, 1.0, 2.0]), torch.zeros(3, dtype=torch.int64), constant)
    assert flat.isfinite().all() and float(flat[0]) == 0 < float(flat[2])


def test_classes_with_few_images_use_everyone() -> None:
    values, label = torch.arange(100.0), torch.tensor([0] * 95 + [1] * 5)
    found = class_quantiles(values, label, (0.0, 0.5, 1.0), classes=3, least=6)
    assert found.tolist() == [[0, 0, 0], [47, 49.5, 49.5], [94, 99, 99]]
    scorer = Mutation(mutants=10).fit(MODEL, samples(60)[torch.arange(60) % 4 != 3])
    assert bool(torch.isfinite(scorer(images(20, 1))).all())


def test_bad_arguments_are_named() -> None:
    for fields, said in (
        ({"operator": "afr"}, "operator must be 'fuzz', 'gf', 'ws', 'ns' or 'nai', got 'afr'"),
        ({"statistic": "loss"}, "statistic must be 'odds' or 'rate', got 'loss'"),
        ({"mutants": 1}, "mutants must be at least 2, got 1"),
        ({"change": 1.0}, r"change must lie in \(0, 1\), got 1.0"),
        ({"alpha": 0.5}, r"alpha must lie in \(0, 0.5\), got 0.5"),
        ({"operator": "ws", "level": 1.5}, r"level must lie in \(0, 1\], got 1.5"),
    ):
        with pytest.raises(ValueError, match=said):
            Mutation(**fields)  # type: ignore[arg-type]
    assert Mutation(level=3.5).level == 3.5
    with pytest.raises(ValueError, match="clean must hold at least 20 images, got 19"):
        Mutation().fit(MODEL, samples(19))
    constant = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    nn.init.zeros_(constant[1].weight)
    with pytest.raises(ValueError, match="operator 'fuzz' must change labels at some level"):
        Mutation().fit(constant, samples(40))
