"""One score of many detectors: calibrated where the clean scores reach, ranked beyond, rebuilt from tensors that may be anyone's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from mithridate import roles
from mithridate.analysis.fusion import RULES
from mithridate.calibrate import Threshold, p_values, threshold
from mithridate.crossfit import cross_scores, score_all
from mithridate.data import Samples
from mithridate.defenses.detectors.kde import KDE
from mithridate.defenses.detectors.unified import Unified, UnifiedScorer
from mithridate.errors import BadSpec
from mithridate.metrics import auroc
from mithridate.nn.guarded import Guarded
from mithridate.nn.scorers import TraceScorer
from mithridate.nn.taps import Trace, trace
from mithridate.spec import parse, to_spec


class PixelScorer(TraceScorer):
    """How far one pixel is from what it was in fitting."""

    level: Tensor
    place: Tensor

    def score(self, seen: Trace) -> Tensor:
        pixel: Tensor = seen.images.flatten(1)[:, int(self.place)]
        return (pixel - self.level).square()


class BlindScorer(TraceScorer):
    """Says nothing, and passes no gradient."""

    differentiable = False
    level: Tensor

    def score(self, seen: Trace) -> Tensor:
        return self.level.expand(len(seen.images)).clone()


@dataclass(frozen=True, kw_only=True)
class Pixel:
    """Watches one pixel; a negative one is not watched at all."""

    place: int = 0

    @property
    def scorer(self) -> type[TraceScorer]:
        return PixelScorer if self.place >= 0 else BlindScorer

    def fit(self, model: nn.Module, samples: Samples, *, seed: int = 0, progress: roles.Progress = roles.silent) -> TraceScorer:
        for done in range(3):
            progress("pixel", done + 1, 3)
        if self.place < 0:
            return BlindScorer(model, (), {"level": torch.zeros(())})
        level = samples.images.flatten(1)[:, self.place].mean()
        return PixelScorer(model, (), {"level": level, "place": torch.tensor(self.place)})


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """Its scorer cannot be rebuilt."""

    scorer: ClassVar[None] = None


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, method in (("pixel", Pixel), ("foreign", Foreign)):
        monkeypatch.setitem(roles.REGISTRY, name, roles.Entry(name, "detector", method, (), "nothing", "none"))


class Net(nn.Module):
    """Two layers to read, and a count of the images shown."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.flat, self.fc1, self.relu, self.fc2 = nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)
        self.shown = 0

    def forward(self, x: Tensor) -> Tensor:
        self.shown += len(x)
        return self.fc2(self.relu(self.fc1(self.flat(x))))


def clean(count: int, seed: int = 0) -> Samples:
    images = (0.5 + 0.1 * torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))).clamp(0, 1)
    with torch.no_grad():
        return Samples(images, Net()(images).argmax(1))


def moved(count: int, place: int, seed: int) -> Tensor:
    images = clean(count, seed).images.flatten(1)
    images[:, place] += 0.4
    return images.view(-1, 1, 4, 4)


KDES = ("kde:layer=fc1", "kde")
PIXELS = ("pixel", "pixel:place=5")
every = pytest.mark.parametrize("rule", RULES)


def test_each_detector_is_calibrated_on_images_it_has_not_seen() -> None:
    model, known, fresh = Net(), clean(200), clean(100, seed=1)
    scorer = Unified(detectors=KDES, folds=4).fit(model, known, seed=2)
    assert scorer.specs == KDES and scorer.layers == ("fc1", "fc2@input")
    _, told = scorer.explained(trace(model, fresh.images, scorer.layers))
    for i, spec in enumerate(KDES):
        detector = parse(spec)
        expected = cross_scores(detector, model, known, folds=4, seed=2)
        assert torch.equal(scorer.clean[i], expected.sort().values)
        conformal = p_values(score_all(detector.fit(model, known), fresh, torch.device("cpu")), expected)
        assert float((told[spec] - conformal).abs().max()) <= 1 / 201 + 1e-6, "finer steps, the same p-values"
        assert float(told[spec].min()) >= 1 / 201 - 1e-6 and float(told[spec].max()) < 1


@every
def test_one_detector_alone_ranks_as_it_always_did(rule: str) -> None:
    model, known = Net(), clean(100)
    images = torch.cat([clean(50, seed=1).images, torch.rand(50, 1, 4, 4, generator=torch.Generator().manual_seed(3))])
    alone = KDE().fit(model, known)(images).detach()
    fused = Unified(detectors=("kde",), rule=rule).fit(model, known)(images).detach()
    order = alone.argsort()
    assert bool((fused[order].diff() > 0).all()), "also beyond the highest clean score"


@every
def test_fused_score_is_minus_the_log_of_the_fused_p_value(rule: str) -> None:
    model, images = Net(), clean(40, seed=1).images
    scorer = Unified(detectors=PIXELS, rule=rule).fit(model, clean(300))
    score, told = scorer.explained(trace(model, images))
    inside = torch.stack(list(told.values())).amin(0) > 1.001 / 301
    expected = -RULES[rule](torch.stack(list(told.values())).log())
    torch.testing.assert_close(score[inside], expected[inside].float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scorer(images), score)


@every
def test_one_threshold_serves_two_kinds_of_outliers(rule: str) -> None:
    """Each detector is blind to one kind; together, at the rate asked for, they see both."""
    model, known = Net(), clean(400)
    scorer = Unified(detectors=(*PIXELS, "pixel:place=-1"), rule=rule).fit(model, known)
    cut = threshold(score_all(scorer, clean(999, seed=1), torch.device("cpu")), 0.05)
    fresh = score_all(scorer, clean(2000, seed=2), torch.device("cpu"))
    assert 0.03 < float(cut.flag(fresh).float().mean()) < 0.07
    for place in (0, 5):
        assert float(cut.flag(scorer(moved(300, place, seed=3)).detach()).float().mean()) > 0.9
        other = parse(PIXELS[place == 0]).fit(model, known)
        both = torch.cat([other(clean(300, seed=4).images), other(moved(300, place, seed=3))])
        assert auroc(both, torch.arange(600) >= 300) < 0.6, "the other one is blind"


def test_one_forward_pass_serves_all() -> None:
    model = Net()
    scorer = Unified(detectors=(*KDES, *PIXELS)).fit(model, clean(60))
    model.shown = 0
    scorer(clean(30, seed=1).images)
    assert model.shown == 30


def test_a_guarded_model_shows_it_each_layer_under_its_name() -> None:
    """Whatever order its members name them in."""
    model, images = Net(), clean(20, seed=1).images
    scorer = Unified(detectors=KDES[::-1]).fit(model, clean(60))
    assert scorer.layers == ("fc2@input", "fc1")
    guarded = Guarded(model, [(scorer, Threshold(torch.tensor(1.0), 0.05))])
    torch.testing.assert_close(guarded.excess(guarded.look(images)), scorer(images) - 1)


@every
def test_far_inputs_are_finite_and_give_gradients(rule: str) -> None:
    scorer = Unified(detectors=("kde:bandwidth=0.001", "kde:layer=fc1"), rule=rule).fit(Net(), clean(100))
    images = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4), torch.full((1, 4, 4), 1e4)]).requires_grad_()
    scores = scorer(images)
    (gradient,) = torch.autograd.grad(scores.sum(), images)
    assert bool(torch.isfinite(scores).all()) and bool(torch.isfinite(gradient).all())
    assert bool((gradient.flatten(1).abs().sum(1) > 0).all())


def test_the_six_default_detectors_work_together() -> None:
    model, known = Net(), clean(120)
    scorer = Unified(folds=2).fit(model, known)
    assert scorer.specs == ("mutation", "activation_space", "kde", "lid", "mahalanobis", "squeezing") and not scorer.differentiable
    model.shown = 0
    noise = scorer(torch.rand(100, 1, 4, 4, generator=torch.Generator().manual_seed(3)))
    assert model.shown == 300, "all read the pass that gives the prediction, and one squeezes the images twice"
    scores = torch.cat([scorer(clean(100, seed=1).images), noise])
    assert auroc(scores, torch.arange(200) >= 100) > 0.9
    rebuilt = UnifiedScorer(model, scorer.layers, scorer.state_dict())
    assert torch.equal(rebuilt(known.images), scorer(known.images))


def test_it_is_differentiable_when_all_detectors_are() -> None:
    assert Unified(detectors=PIXELS).fit(Net(), clean(60)).differentiable
    assert not Unified(detectors=("kde", "pixel:place=-1")).fit(Net(), clean(60)).differentiable


def test_progress_is_its_own_and_reaches_the_end() -> None:
    told: list[tuple[str, int, int]] = []
    Unified(detectors=PIXELS).fit(Net(), clean(60), progress=lambda task, done, total, note="": told.append((task, done, total)))
    assert told == [("unified", 1, 2), ("unified", 2, 2)]


@pytest.fixture
def fitted() -> UnifiedScorer:
    return Unified(detectors=KDES).fit(Net(), clean(60))


def text(value: object) -> Tensor:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return torch.tensor(list(raw), dtype=torch.uint8)


MEMBERS = {"kde:layer=fc1": ["fc1"], "kde": ["fc2@input"]}
DAMAGE: dict[str, tuple[dict[str, Tensor], str]] = {
    "no text": ({"about": text(b"")}, "about must be the JSON text"),
    "no unicode": ({"about": text(b"\xff\xfe")}, "about must be the JSON text"),
    "no table": ({"about": text([1, 2])}, "about must be the JSON text"),
    "very deep": ({"about": text(b"[" * 100_000)}, "about must be the JSON text"),
    "no bytes": ({"about": torch.zeros(3)}, "about must be the JSON text"),
    "no row": ({"about": torch.zeros(3, 3, dtype=torch.uint8)}, "about must be the JSON text"),
    "unknown rule": ({"about": text({"rule": "x", "members": MEMBERS})}, "about must be the JSON text"),
    "rule of no kind": ({"about": text({"rule": [], "members": MEMBERS})}, "about must be the JSON text"),
    "no members": ({"about": text({"rule": "cauchy", "members": {}})}, "detectors must hold at least one"),
    "members of no kind": ({"about": text({"rule": "cauchy", "members": ["kde"]})}, "about must be the JSON text"),
    "unknown detector": ({"about": text({"rule": "cauchy", "members": {"kdf": [], "kde": []}})}, "'kdf' is unknown; did you mean kde"),
    "another role": ({"about": text({"rule": "cauchy", "members": {"pgd": [], "kde": []}})}, "'pgd' is unknown"),
    "itself": ({"about": text({"rule": "cauchy", "members": {"unified": [], "kde": []}})}, "not be unified themselves"),
    "unknown layer": ({"about": text({"rule": "cauchy", "members": MEMBERS | {"kde": ["fc9"]}})}, "layer 'fc9' is not in the model"),
    "one member": ({"about": text({"rule": "cauchy", "members": {"kde": ["fc2@input"]}})}, r"clean must have shape \(1, n > 1\)"),
    "no scores": ({"clean": torch.zeros(2, 1)}, "clean must have shape"),
    "one score": ({"clean": torch.zeros(())}, "clean must have shape"),
    "scales missing": ({"scale": torch.ones(1)}, r"scale \(2,\)"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_state_that_was_made_up_is_refused(fitted: UnifiedScorer, name: str) -> None:
    change, said = DAMAGE[name]
    state = dict(fitted.state_dict())
    assert torch.equal(UnifiedScorer(fitted.model, fitted.layers, state)(clean(9).images), fitted(clean(9).images))
    with pytest.raises(ValueError, match=said):
        UnifiedScorer(fitted.model, fitted.layers, state | change)


def test_buffers_of_a_member_are_missed_by_name(fitted: UnifiedScorer) -> None:
    state = {name: value for name, value in fitted.state_dict().items() if name != "scorers.1.bandwidth"}
    with pytest.raises(ValueError, match="KDEScorer lacks bandwidth"):
        UnifiedScorer(fitted.model, fitted.layers, state)


def test_specifications_hold_specifications() -> None:
    method = Unified(detectors=("kde:layer=fc1,bandwidth=0.5", "pixel", "kde:least=3"), rule="minimum")
    assert to_spec(method) == "unified:detectors=[kde:layer=fc1,bandwidth=0.5],pixel,[kde:least=3],rule=minimum"
    assert parse(to_spec(method)) == method
    assert parse("unified:detectors=pixel,kde:least=3,folds=4") == Unified(detectors=("pixel", "kde:least=3"), folds=4)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"detectors": ()}, "detectors must hold at least one, and none twice, got none"),
        ({"detectors": ("kde", "kde")}, "none twice, got kde, kde"),
        ({"detectors": ("unified",)}, "detectors must not be unified themselves, got 'unified'"),
        ({"detectors": ("foreign",)}, "detectors must have a scorer that can be rebuilt, got 'foreign'"),
        ({"detectors": ("kdf",)}, "detector 'kdf' is unknown; did you mean kde"),
        ({"rule": "mean"}, "rule must be 'cauchy', 'harmonic' or 'minimum', got 'mean'"),
        ({"folds": 1}, "folds must be at least 2, got 1"),
    ],
)
def test_bad_fields_are_named(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Unified(**fields)  # type: ignore[arg-type]
    with pytest.raises(BadSpec):
        parse("unified:detectors=[unified:detectors=kde]")


def test_too_few_images_are_named() -> None:
    with pytest.raises(ValueError, match="clean must hold at least 5 images, as many as folds, got 4"):
        Unified(detectors=("pixel",)).fit(Net(), clean(4))
