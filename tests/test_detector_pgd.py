"""Attacks on detectors, against linear models and scorers where the best answer is known exactly."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from mithridate.calibrate import Threshold
from mithridate.data import Samples
from mithridate.defenses.detectors.kde import KDE
from mithridate.nn.guarded import Guarded
from mithridate.nn.scorers import TraceScorer
from mithridate.nn.taps import Trace, last_hidden
from mithridate.roles import Goal
from mithridate.threats.attack import attack
from mithridate.threats.evasion.detector_pgd import DetectorPGD
from mithridate.threats.evasion.pgd import PGD

SHAPE = (1, 4, 5)
FAR = 0.4  # no best answer below touches the bounds of the box
STRATEGIES = ("orthogonal", "selective", "sum")


class Linear(nn.Module):
    """Two classes, told apart by the sign of w x + b."""

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), bias

    def forward(self, x: Tensor) -> Tensor:
        side = x.flatten(1) @ self.weight + self.bias
        return torch.stack([side, -side], 1)


class Slope(nn.Module):
    """Scores v x, as often as asked with noise from the global generator."""

    differentiable: ClassVar[bool] = True

    def __init__(self, weight: Tensor, noise: float = 0.0) -> None:
        super().__init__()
        self.weight, self.noise = weight, noise

    def forward(self, x: Tensor) -> Tensor:
        turned = self.weight + self.noise * torch.randn_like(self.weight) if self.noise else self.weight
        return x.flatten(1) @ turned


class Case:
    """Images at 0.5 a distance FAR from the boundary, whose score is exactly at the threshold.

    The model's normal w and the scorer's v have unit length and the cosine -`cosine`. To fool means w d < -FAR; to stay unseen,
    v d <= 0. The shortest change that only fools is along -w, and it is seen; the shortest one that does both is along the part
    of -w that v does not see, at length FAR / sqrt(1 - cosine^2).
    """

    def __init__(self, cosine: float, count: int = 3, noise: float = 0.0) -> None:
        w = torch.zeros(20, dtype=torch.float64)
        v = w.clone()
        w[:10], v[10:] = 10**-0.5, 10**-0.5
        v = -cosine * w + (1 - cosine**2) ** 0.5 * v
        self.images = torch.full((count, *SHAPE), 0.5, dtype=torch.float64)
        self.labels = torch.zeros(count, dtype=torch.int64)
        self.model = Linear(w, FAR - float(w.sum()) / 2)
        self.scorer = Slope(v, noise)
        self.threshold = Threshold((self.images[:1].flatten(1) @ v)[0], 0.05)
        self.least = FAR / (1 - cosine**2) ** 0.5

    @property
    def guarded(self) -> Guarded:
        return Guarded(self.model, [(self.scorer, self.threshold)])


def detected(guarded: Guarded, images: Tensor) -> Tensor:
    with torch.no_grad():
        return guarded.excess(guarded.look(images)) > 0


@pytest.mark.parametrize("cosine", [0.3, 0.7, 0.9])
def test_orthogonal_attack_is_as_short_as_can_be_and_plain_pgd_is_caught(cosine: float) -> None:
    case = Case(cosine)
    case.threshold = Threshold(case.threshold.cut + 1e-9, 0.05)
    eps = 1.05 * case.least
    guarded = case.guarded
    plain = attack(PGD(norm="l2", eps=eps, steps=60), guarded, case.images, case.labels)
    assert bool(plain.fooled.all()) and bool(detected(guarded, plain.images).all())
    ours = attack(DetectorPGD(norm="l2", eps=eps, steps=60, step=eps / 25, strategy="orthogonal"), guarded, case.images, case.labels)
    assert bool(ours.fooled.all()) and not bool(detected(guarded, ours.images).any())
    assert float(ours.l2.max()) <= eps + 1e-6
    assert float(ours.l2.min()) >= case.least - 1e-6, "shorter than what can be"
    never = attack(DetectorPGD(norm="l2", eps=0.97 * case.least, steps=60, strategy="orthogonal"), guarded, case.images, case.labels)
    assert bool((detected(guarded, never.images) | ~never.fooled).all()), "nothing shorter can fool unseen"


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("goal", [Goal(), Goal(1), Goal(torch.tensor([1, 1, 1]))], ids=["untargeted", "target", "per sample"])
def test_every_strategy_and_goal_finds_what_is_there(strategy: Any, norm: Any, goal: Goal) -> None:
    case = Case(0.5)
    eps = 2.1 * FAR if norm == "l2" else 0.2
    made = attack(DetectorPGD(norm=norm, eps=eps, strategy=strategy, steps=60), case.guarded, case.images, case.labels, goal)
    assert bool(made.fooled.all()) and not bool(detected(case.guarded, made.images).any())
    assert float((made.l2 if norm == "l2" else made.linf).max()) <= eps + 1e-6
    assert 0 <= float(made.images.min()) <= float(made.images.max()) <= 1


@pytest.mark.parametrize("strategy", ["orthogonal", "selective"])
def test_each_image_gets_the_best_that_can_be_had(strategy: Any) -> None:
    """Not fooled in a ball that is too small; fooled but seen in a larger one, with the lowest score there is."""
    case = Case(0.9)
    small = attack(DetectorPGD(norm="l2", eps=0.9 * FAR, strategy=strategy), case.guarded, case.images, case.labels)
    assert not bool(small.fooled.any())
    assert bool((small.l2 > 0.85 * FAR).all()), "as close to the goal as the ball allows"
    middle = attack(DetectorPGD(norm="l2", eps=1.5 * FAR, steps=80, strategy=strategy), case.guarded, case.images, case.labels)
    assert bool(middle.fooled.all())
    plain = attack(PGD(norm="l2", eps=1.5 * FAR), case.guarded, case.images, case.labels)
    assert bool((case.scorer(middle.images) < case.scorer(plain.images)).all())


def test_unseen_images_leave_at_once_and_are_not_touched_again() -> None:
    case = Case(0.6)
    wrong = torch.ones_like(case.labels)
    made = attack(DetectorPGD(), case.guarded, case.images, wrong)
    assert torch.equal(made.images, case.images), "already fooled, and under the threshold"
    assert made.forwards == len(case.images)


def test_without_detectors_it_is_an_attack_like_any_other() -> None:
    case = Case(0.6)
    made = attack(DetectorPGD(norm="l2", eps=1.05 * FAR, steps=30), case.model, case.images, case.labels)
    assert bool(made.fooled.all())
    assert torch.equal(
        made.images, attack(DetectorPGD(norm="l2", eps=1.05 * FAR, steps=30), Guarded(case.model), case.images, case.labels).images
    )


def test_cost_is_counted_with_both_gradients() -> None:
    case = Case(0.9)
    made = attack(DetectorPGD(norm="l2", eps=0.5 * FAR, steps=4), case.guarded, case.images, case.labels)
    assert (made.forwards, made.gradients) == (5 * 3, 2 * 5 * 3)
    assert attack(DetectorPGD(norm="l2", eps=0.5 * FAR, steps=4, eot=3), case.guarded, case.images, case.labels).forwards == 3 * 5 * 3


def test_batches_and_restarts_do_not_change_the_outcome() -> None:
    case = Case(0.9, count=5)
    whole = DetectorPGD(norm="l2", eps=1.2 * FAR, steps=10, restarts=2, batch_size=5)
    made = attack(whole, case.guarded, case.images, case.labels, seed=3)
    assert torch.equal(made.images, attack(whole, case.guarded, case.images, case.labels, seed=3).images)
    assert float(made.l2.max()) <= 1.2 * FAR + 1e-6
    parts = attack(DetectorPGD(norm="l2", eps=1.2 * FAR, steps=10, batch_size=2), case.guarded, case.images, case.labels)
    once = attack(DetectorPGD(norm="l2", eps=1.2 * FAR, steps=10), case.guarded, case.images, case.labels)
    assert torch.allclose(parts.images, once.images)


def test_mean_gradients_see_through_noise() -> None:
    """A scorer that turns at random: judged by many draws, what one draw calls unseen is often seen; ten draws find the way."""

    def seen(eot: int) -> float:
        case = Case(0.6, count=8, noise=0.15)
        case.threshold = Threshold(case.threshold.cut + 0.3, 0.05)
        made = attack(DetectorPGD(norm="l2", eps=2.5 * FAR, steps=60, eot=eot), case.guarded, case.images, case.labels)
        assert bool(made.fooled.all())
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return float(torch.stack([detected(case.guarded, made.images) for _ in range(200)]).double().mean())

    assert seen(20) < 0.5 * seen(1)


def test_a_model_too_sure_for_cross_entropy_is_attacked_all_the_same() -> None:
    case = Case(0.6)
    case.model.weight.data *= 1e4
    case.model.bias *= 1e4
    made = attack(DetectorPGD(norm="l2", eps=1.5 * FAR), case.guarded, case.images, case.labels)
    assert bool(made.fooled.all()) and not bool(detected(case.guarded, made.images).any())


def test_draws_come_from_the_seed_and_leave_the_global_generator_alone() -> None:
    case = Case(0.6, noise=0.3)
    runs = DetectorPGD(norm="l2", eps=2.5 * FAR, steps=5, eot=2)
    before = torch.get_rng_state()
    first = attack(runs, case.guarded, case.images, case.labels, seed=1).images
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert torch.equal(first, attack(runs, case.guarded, case.images, case.labels, seed=1).images)


class Blobs(nn.Module):
    """A small net over two pixels groups with a hidden layer, for scorers that read it."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(20, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.hidden(x.flatten(1))))


class FromMean(TraceScorer):
    """Distance from the clean mean of the predicted class, kept without gradients."""

    differentiable = False
    means: Tensor

    def score(self, seen: Trace) -> Tensor:
        hidden: Tensor = seen.activations[self.layers[0]]
        return (hidden - self.means[seen.predicted]).norm(dim=1)


def blobs() -> tuple[Blobs, Samples]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    images = (0.5 + (labels[:, None] - 0.5) * 0.3 * torch.ones(20) + 0.1 * torch.randn(400, 20, generator=generator)).clamp(0, 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Blobs()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return model.eval(), Samples(images.view(-1, *SHAPE), labels)


def test_feature_matching_hides_from_scores_without_gradients() -> None:
    model, samples = blobs()
    clean, victims = samples[:300], samples[300:340]
    layer = last_hidden(model, clean.images[:1])
    with torch.no_grad():
        hidden = torch.tanh(model.hidden(clean.images.flatten(1)))
    means = torch.stack([hidden[clean.labels == label].mean(0) for label in (0, 1)])
    scorer = FromMean(model, (layer,), {"means": means})
    guarded = Guarded(model, [(scorer, Threshold(scorer(clean.images).detach().quantile(0.95), 0.05))], clean.images)
    plain = attack(PGD(eps=0.35, steps=40), guarded, victims.images, victims.labels)
    assert bool(plain.fooled.all())
    assert float(detected(guarded, plain.images).double().mean()) > 0.9
    for strategy in STRATEGIES:
        ours = attack(DetectorPGD(eps=0.35, steps=40, strategy=strategy), guarded, victims.images, victims.labels)
        assert bool(ours.fooled.all())
        assert float(detected(guarded, ours.images).double().mean()) < 0.3
        with torch.no_grad():
            assert float(scorer(ours.images).mean()) < float(scorer(plain.images).mean())


def test_scorers_that_do_not_say_what_they_read_are_matched_at_the_last_hidden_layer() -> None:
    model, samples = blobs()

    class Silent(Slope):
        differentiable: ClassVar[bool] = False

    guarded = Guarded(model, [(Silent(torch.ones(20)), Threshold(torch.tensor(0.0), 0.05))], samples.images)
    assert guarded.pulled == ("head@input",)
    seen = guarded.look(samples.images[:6])
    own = guarded.lure(seen, seen.predicted)
    assert torch.allclose(own, guarded.excess(seen) * 0 - 1, atol=1e-4), "a clean image is its own nearest one"
    assert bool((guarded.lure(seen, 1 - seen.predicted) > own + 0.1).all())


def test_one_pass_serves_model_and_detectors() -> None:
    model, samples = blobs()
    scorer = KDE().fit(model, samples)
    guarded = Guarded(model, [(scorer, Threshold(torch.tensor(1.0), 0.05))])
    seen = guarded.look(samples.images[:9])
    assert torch.allclose(guarded.excess(seen), scorer(samples.images[:9]) - 1, atol=1e-5)
    assert torch.equal(guarded(samples.images[:9]), model(samples.images[:9]))
    per_class = Guarded(model, [(scorer, Threshold(torch.tensor([1.0, 3.0]), 0.05))])
    expected = scorer(samples.images[:9]) - torch.tensor([1.0, 3.0])[seen.predicted]
    assert torch.allclose(per_class.excess(seen), expected, atol=1e-5)
    both = Guarded(model, [(scorer, Threshold(torch.tensor(1.0), 0.05)), (Slope(torch.ones(20)), Threshold(torch.tensor(2.0), 0.05))])
    worst = torch.maximum(scorer(samples.images[:9]) - 1, samples.images[:9].flatten(1).sum(1) - 2)
    assert torch.allclose(both.excess(both.look(samples.images[:9])), worst, atol=1e-5)


def test_what_cannot_be_attacked_is_refused() -> None:
    case = Case(0.6)
    with pytest.raises(ValueError, match="strategy must be .* got 'best'"):
        DetectorPGD(strategy="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"target must lie in \[0, 2\), got 5"):
        DetectorPGD().perturb(case.guarded, case.images, case.labels, Goal(5))
    with pytest.raises(ValueError, match="watchers must hold scorers that are nn.Module, got function"):
        Guarded(case.model, [(lambda images: images, case.threshold)])  # type: ignore[list-item]

    class Opaque(Slope):
        differentiable: ClassVar[bool] = False

    with pytest.raises(ValueError, match="clean must hold images when a scorer is not differentiable, got none"):
        Guarded(case.model, [(Opaque(torch.ones(20)), case.threshold)])
