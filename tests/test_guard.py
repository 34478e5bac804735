"""The guard: one forward pass, exact thresholds, and a round trip through files that strangers may have touched."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mithridate import roles
from mithridate.analysis.fusion import RULES
from mithridate.calibrate import p_values
from mithridate.crossfit import cross_scores, score_all
from mithridate.data import Samples
from mithridate.defenses.detectors.activation_space import ActivationSpace
from mithridate.defenses.detectors.kde import KDE
from mithridate.defenses.detectors.lid import LID
from mithridate.defenses.detectors.mahalanobis import Mahalanobis
from mithridate.defenses.detectors.mutation import Mutation
from mithridate.defenses.detectors.squeezing import Squeezing
from mithridate.defenses.detectors.unified import Unified
from mithridate.errors import BadFile, MithridateError
from mithridate.files import sha256
from mithridate.guard import Guard
from mithridate.nn.modes import predict
from mithridate.nn.scorers import TraceScorer
from mithridate.nn.taps import Trace
from mithridate.spec import parse, to_spec


class Counting(nn.Module):
    """A small net that counts the images it is shown."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.fc1, self.fc2 = nn.Linear(16, 8), nn.Linear(8, 3)
        self.shown = 0

    def forward(self, x: Tensor) -> Tensor:
        self.shown += len(x)
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


def clean(count: int, seed: int = 0) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    images = (0.5 + 0.1 * torch.randn(count, 1, 4, 4, generator=generator)).clamp(0, 1)
    labels = predict(Counting(), images).argmax(1)
    return Samples(images, labels, ("a", "b", "c"))


class BrightScorer(TraceScorer):
    """Distance of the mean brightness from what it was in fitting."""

    level: Tensor

    def score(self, seen: Trace) -> Tensor:
        return (seen.images.mean((1, 2, 3)) - self.level).abs()


@dataclass(frozen=True, kw_only=True)
class Bright:
    """A second detector."""

    scorer: ClassVar[type[TraceScorer]] = BrightScorer

    def fit(self, model: nn.Module, samples: Samples, *, seed: int = 0, progress: roles.Progress = roles.silent) -> BrightScorer:
        return BrightScorer(model, (), {"level": samples.images.mean()})


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second detector is known to specifications during these tests, under the name of its module."""
    entry = roles.Entry(Bright.__module__.rpartition(".")[2], "detector", Bright, (), "one mean", "none")
    monkeypatch.setitem(roles.REGISTRY, entry.name, entry)


DETECTORS = {"one": [KDE()], "two": [KDE(), Bright()], "unified": [Unified(detectors=("kde:layer=fc1", "kde"), folds=2)]}
either = pytest.mark.parametrize("detectors", DETECTORS.values(), ids=DETECTORS.keys())


@either
def test_flags_p_values_and_thresholds_agree(detectors: list[roles.Detector]) -> None:
    model, known = Counting(), clean(300)
    guard = Guard.fit(model, detectors, known, fpr=0.05)
    suspects = torch.cat([clean(150, seed=1).images, torch.rand(150, 1, 4, 4, generator=torch.Generator().manual_seed(2))])
    answer = guard.answer(suspects)
    torch.testing.assert_close(answer.logits, predict(model, suspects))
    assert torch.equal(answer.predicted, answer.logits.argmax(1))
    above = torch.stack([answer.scores[spec] > guard.threshold(spec).cut for spec in guard.specs])
    assert torch.equal(answer.flagged, above.any(0))
    assert 0 < int(answer.flagged.sum()) < 300
    assert torch.equal(answer.flagged, answer.p_values <= 0.05 + 1e-9), "refused exactly where the p-value is at most the rate"
    tails = torch.stack([p_values(answer.scores[s], c.detach()) for s, c in zip(guard.specs, guard.calibration, strict=True)])
    torch.testing.assert_close(answer.p_values, (len(detectors) * tails.min(0).values).clamp(max=1))
    assert torch.equal(torch.stack(list(answer.tails.values())), tails)


@either
def test_flagged_inputs_come_with_a_reason_in_words(detectors: list[roles.Detector]) -> None:
    guard = Guard.fit(Counting(), detectors, clean(300), fpr=0.05)
    answer = guard.answer(torch.rand(100, 1, 4, 4, generator=torch.Generator().manual_seed(2)))
    assert [bool(reason) for reason in answer.reasons] == answer.flagged.tolist()
    shown = answer.members[guard.specs[0]] or answer.tails
    assert set(shown) == ({"kde:layer=fc1", "kde"} if isinstance(detectors[0], Unified) else set(guard.specs))
    for i in answer.flagged.nonzero()[:, 0].tolist():
        name = min(shown, key=lambda name: float(shown[name][i]))
        rate = round(1 / float(shown[name][i]))
        assert answer.reasons[i].startswith(f"at most 1 in {rate:,} clean inputs is as unusual to {name}")
        assert rate <= 301, "no more than the clean inputs support"
        others = [other for other in shown if other != name and float(shown[other][i]) <= 0.05]
        assert all(f", 1 in {round(1 / float(shown[other][i])):,} to {other}" in answer.reasons[i] for other in others)


def test_p_values_of_the_members_of_a_unified_detector_are_seen() -> None:
    model, known, suspects = Counting(), clean(150), clean(80, seed=1)
    guard = Guard.fit(model, DETECTORS["unified"], known, fpr=0.05)
    (members,) = guard.answer(suspects, batch_size=30).members.values()
    for spec, told in members.items():
        scores = score_all(parse(spec).fit(model, known), suspects, torch.device("cpu"))
        alone = p_values(scores, cross_scores(parse(spec), model, known, folds=2))
        assert float((told - alone).abs().max()) <= 1 / 151 + 1e-6


@either
def test_thresholds_are_set_on_scores_of_images_not_seen_in_fitting(detectors: list[roles.Detector]) -> None:
    model, known = Counting(), clean(200)
    guard = Guard.fit(model, detectors, known, fpr=0.05, seed=3)
    for detector, spec in zip(detectors, guard.specs, strict=True):
        expected = cross_scores(detector, model, known, seed=3)
        assert torch.equal(guard.calibration[guard.specs.index(spec)], expected)
        share = 0.05 / len(detectors)
        assert float((expected > guard.threshold(spec).cut).float().mean()) <= share
        assert guard.threshold(spec).fpr == share


def test_realised_rate_is_the_asked_one() -> None:
    guard = Guard.fit(Counting(), [KDE(), Bright()], clean(400), fpr=0.1)
    rate = float(guard.answer(clean(1500, seed=9)).flagged.float().mean())
    assert 0.05 < rate < 0.125, "Bonferroni may stay below the rate, never far above it"


@either
def test_one_forward_pass_serves_all(detectors: list[roles.Detector]) -> None:
    guard = Guard.fit(Counting(), detectors, clean(200), fpr=0.05)
    guard.model.shown = 0  # type: ignore[assignment]
    guard.answer(clean(70, seed=1), batch_size=32)
    assert guard.model.shown == 70


@either
def test_answers_do_not_depend_on_the_batch_or_the_dtype(detectors: list[roles.Detector]) -> None:
    guard = Guard.fit(Counting(), detectors, clean(200), fpr=0.05)
    images = (clean(50, seed=1).images * 255).round().to(torch.uint8)
    whole = guard.answer(images)
    for other in (guard.answer(images, batch_size=7), guard.answer(images / 255)):
        torch.testing.assert_close(other.logits, whole.logits)
        for spec in guard.specs:
            torch.testing.assert_close(other.scores[spec], whole.scores[spec], atol=1e-4, rtol=1e-4)


@either
def test_round_trip_gives_bit_identical_answers(tmp_path: Path, detectors: list[roles.Detector]) -> None:
    model, suspects = Counting(), clean(60, seed=4)
    guard = Guard.fit(model, detectors, clean(200), fpr=0.07)
    guard.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["guard.safetensors", "guard.toml"]
    again = Guard.load(tmp_path, model)
    assert again.specs == guard.specs and again.fpr == guard.fpr and again.layers == guard.layers
    before, after = guard.answer(suspects), again.answer(suspects)
    for name in ("logits", "flagged", "p_values"):
        assert torch.equal(getattr(before, name), getattr(after, name))
    assert all(torch.equal(before.scores[spec], after.scores[spec]) for spec in guard.specs)
    again.save(tmp_path / "again")
    for name in ("guard.safetensors", "guard.toml"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()
    assert not any(key.startswith("fc") for key in load_file(tmp_path / "guard.safetensors")), "the model is not in the file"


def test_the_model_is_referenced_and_unharmed() -> None:
    model = Counting().train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    guard = Guard.fit(model, [KDE()], clean(200), fpr=0.05)
    assert guard.model is model and model.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert guard.fitted()[0].model is model


def test_wrong_arguments_are_named() -> None:
    model = Counting()
    with pytest.raises(ValueError, match="false-positive rate of 0.01 needs at least 99 clean samples, got 98"):
        Guard.fit(model, [KDE()], clean(98))
    assert Guard.fit(model, [KDE()], clean(99)).fpr == 0.01
    with pytest.raises(ValueError, match="false-positive rate of 0.005 needs at least 199 clean samples, got 198"):
        Guard.fit(model, [KDE(), Bright()], clean(198))
    with pytest.raises(ValueError, match=r"fpr must lie in \(0, 1\), got 1.5"):
        Guard.fit(model, [KDE()], clean(100), fpr=1.5)
    with pytest.raises(ValueError, match="detectors must hold at least one detector, got none"):
        Guard.fit(model, [], clean(100))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    Guard.fit(Counting(), [KDE()], clean(200), fpr=0.05).save(tmp_path)
    return tmp_path


def rewrite(folder: Path, change: Callable[[str], str]) -> None:
    path = folder / "guard.toml"
    path.write_text(change(path.read_text()))


TOML = {
    "no TOML": lambda text: "[[[",
    "empty": lambda text: "",
    "cut": lambda text: text[: len(text) // 2],
    "another format": lambda text: text.replace("format = 1", "format = 2"),
    "no detectors": lambda text: 'format = 1\nfpr = 0.05\nsha256 = "x"\n',
    "empty detectors": lambda text: text.partition("[[")[0] + "detectors = []\n",
    "detectors of no kind": lambda text: text.partition("[[")[0] + "detectors = [1, 2]\n",
    "no specification": lambda text: text.replace("spec =", "other ="),
    "number as specification": lambda text: text.replace('spec = "kde"', "spec = 3"),
    "unknown detector": lambda text: text.replace('"kde"', '"nothing"'),
    "another role": lambda text: text.replace('"kde"', '"pgd"'),
    "unknown field": lambda text: text.replace('"kde"', '"kde:nothing=1"'),
    "unknown layer": lambda text: text.replace("fc2@input", "fc9@input"),
    "number as layer": lambda text: text.replace('"fc2@input"', "7"),
    "no layers": lambda text: text.replace("layers =", "other ="),
    "rate of no kind": lambda text: text.replace("fpr = 0.05", 'fpr = "often"'),
    "rate out of range": lambda text: text.replace("fpr = 0.05", "fpr = 5.0"),
    "rate not finite": lambda text: text.replace("fpr = 0.05", "fpr = nan"),
    "rate too small": lambda text: text.replace("fpr = 0.05", "fpr = 0.0001"),
    "no rate": lambda text: text.replace("fpr =", "other ="),
    "other weights": lambda text: text.replace('sha256 = "', 'sha256 = "0'),
    "a second detector": lambda text: text + '\n[[detectors]]\nspec = "kde"\nlayers = []\n',
}


@pytest.mark.parametrize("name", TOML)
def test_a_table_that_was_touched_is_refused_in_one_line(saved: Path, name: str) -> None:
    before = (saved / "guard.toml").read_text()
    rewrite(saved, TOML[name])
    assert (saved / "guard.toml").read_text() != before
    with pytest.raises(BadFile, match=r"guard\.") as error:
        Guard.load(saved, Counting())
    assert "\n" not in str(error.value).strip()


def test_binary_rubbish_is_refused(saved: Path) -> None:
    (saved / "guard.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadFile, match="not a readable guard"):
        Guard.load(saved, Counting())


STATE: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "no bank": lambda state: {k: v for k, v in state.items() if not k.endswith("bank")},
    "no calibration": lambda state: {k: v for k, v in state.items() if not k.endswith("calibration")},
    "flat calibration": lambda state: state | {"0.calibration": torch.zeros(20, 10)},
    "few calibration scores": lambda state: state | {"0.calibration": torch.zeros(3)},
    "not finite": lambda state: state | {"0.calibration": torch.full((200,), float("nan"))},
    "a buffer named like a method": lambda state: state | {"0.buffer.forward": torch.zeros(1)},
    "a buffer named like the model": lambda state: state | {"0.buffer.model": torch.zeros(1)},
    "a buffer with a dot": lambda state: state | {"0.buffer.a.b": torch.zeros(1)},
    "a buffer without a name": lambda state: state | {"0.buffer.": torch.zeros(1)},
}


@pytest.mark.parametrize("name", STATE)
def test_a_state_that_was_made_up_is_refused(saved: Path, name: str) -> None:
    """Even where the checksum is right, as an attacker would write it."""
    path = saved / "guard.safetensors"
    old = sha256(path)
    save_file(STATE[name](load_file(path)), path)
    rewrite(saved, lambda text: text.replace(old, sha256(path)))
    assert tomllib.loads((saved / "guard.toml").read_text())["sha256"] == sha256(path) != old
    with pytest.raises(BadFile):
        Guard.load(saved, Counting())


MEMBERS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "no bank": lambda state: {k: v for k, v in state.items() if not k.endswith("scorers.1.bank")},
    "no text": lambda state: {k: v for k, v in state.items() if not k.endswith("about")},
    "a letter changed": lambda state: retold(state, b"kde:", b"kdf:"),
    "a layer changed": lambda state: retold(state, b'["fc1"]', b'["fc9"]'),
    "cut text": lambda state: retold(state, b"}", b""),
    "text as numbers": lambda state: state | {"0.buffer.about": state["0.buffer.about"].float()},
    "no scores": lambda state: state | {"0.buffer.clean": torch.zeros(0)},
}


def retold(state: dict[str, Tensor], old: bytes, new: bytes) -> dict[str, Tensor]:
    before = bytes(state["0.buffer.about"].tolist())
    assert old in before
    return state | {"0.buffer.about": torch.tensor(list(before.replace(old, new)), dtype=torch.uint8)}


@pytest.mark.parametrize("name", MEMBERS)
def test_members_that_were_made_up_are_refused(tmp_path: Path, name: str) -> None:
    Guard.fit(Counting(), DETECTORS["unified"], clean(60), fpr=0.05).save(tmp_path)
    path = tmp_path / "guard.safetensors"
    old = sha256(path)
    save_file(MEMBERS[name](load_file(path)), path)
    rewrite(tmp_path, lambda text: text.replace(old, sha256(path)))
    with pytest.raises(BadFile, match="not a guard of this model") as error:
        Guard.load(tmp_path, Counting())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["missing", "cut", "one bit", "other guard"])
def test_damaged_weights_are_refused(saved: Path, damage: str) -> None:
    path = saved / "guard.safetensors"
    whole = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(whole[:-40])
    elif damage == "one bit":
        whole[-3] ^= 1
        path.write_bytes(whole)
    else:
        table = (saved / "guard.toml").read_bytes()
        Guard.fit(Counting(), [KDE()], clean(200, seed=8), fpr=0.05).save(saved)
        (saved / "guard.toml").write_bytes(table)
    with pytest.raises(MithridateError):
        Guard.load(saved, Counting())


def test_a_guard_of_another_model_is_refused(saved: Path) -> None:
    with pytest.raises(BadFile, match=r"not a guard of this model: .*fc2@input"):
        Guard.load(saved, nn.Sequential(nn.Flatten(), nn.Linear(16, 3)))


class Plain(nn.Module):
    """A convolutional net without anything that cannot be exported."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.norm, self.drop, self.fc2 = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.drop(torch.relu(self.norm(self.conv(x))).mean((2, 3))))


EXPORTED: list[list[roles.Detector]] = [
    [KDE(), Bright()],
    [LID(), ActivationSpace(), ActivationSpace(rule="switches")],
    [LID(conditional=True, k=5), Mutation(mutants=10)],
    [Mahalanobis(layers=("conv", "fc2@input"))],
    [Mahalanobis(), Squeezing()],
    [Unified(detectors=("kde", "lid", "activation_space"), folds=2)],
    *(list[roles.Detector]([Unified(detectors=("kde:layer=conv", "kde"), rule=rule, folds=2)]) for rule in RULES),
]


@pytest.mark.parametrize("detectors", EXPORTED, ids=lambda detectors: "+".join(map(to_spec, detectors)))
def test_the_exported_program_gives_the_same_answers(tmp_path: Path, detectors: list[roles.Detector]) -> None:
    model = Plain().train()
    known = clean(200)
    guard = Guard.fit(model, detectors, Samples(known.images, predict(model, known).argmax(1)), fpr=0.05)
    guard.export(tmp_path / "guard.pt2", known.images[:3])
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    program = torch.export.load(tmp_path / "guard.pt2").module()
    suspects = torch.cat([clean(65, seed=1).images, torch.rand(65, 1, 4, 4, generator=torch.Generator().manual_seed(2))])
    for images in (suspects, suspects[:1], suspects[63:66]):
        told, answer = program(images), guard.answer(images)
        assert torch.equal(told["flagged"], answer.flagged) and torch.equal(told["predicted"], answer.predicted)
        torch.testing.assert_close(told["logits"].detach(), answer.logits)
        torch.testing.assert_close(told["scores"].detach(), torch.stack(list(answer.scores.values()), 1), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(told["tails"], torch.stack(list(answer.tails.values()), 1), rtol=0, atol=1.1 / 201)
    assert 0 < int(program(suspects)["flagged"].sum()) < 130
    assert bool(program(torch.full((1, 1, 4, 4), torch.nan))["flagged"]), "what is not a number is not believed"


class HostScorer(BrightScorer):
    """Decides on the host, where an exported program cannot follow."""

    def score(self, seen: Trace) -> Tensor:
        return super().score(seen) if float(seen.images.mean()) > 0 else self.level.expand(len(seen.images))


@dataclass(frozen=True, kw_only=True)
class Host(Bright):
    """A detector that cannot be exported."""

    def fit(self, model: nn.Module, samples: Samples, *, seed: int = 0, progress: roles.Progress = roles.silent) -> BrightScorer:
        return HostScorer(model, (), {"level": samples.images.mean()})


def test_what_cannot_be_exported_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = Bright.__module__.rpartition(".")[2]
    with pytest.raises(ValueError, match=rf"^{name} cannot be exported: ") as error:
        Guard.fit(Plain(), [KDE(), Host()], clean(200), fpr=0.05).export(tmp_path / "guard.pt2", clean(3).images)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="^the model cannot be exported: "):
        Guard.fit(Counting(), [KDE()], clean(200), fpr=0.05).export(tmp_path / "guard.pt2", clean(3).images)
    with pytest.raises(ValueError, match="images must hold at least 2, so that their number stays open, got 1"):
        Guard.fit(Plain(), [KDE()], clean(200), fpr=0.05).export(tmp_path / "guard.pt2", clean(1).images)
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr() == ("", "")


def test_of_very_many_clean_images_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mithridate.guard.guard.MOST", 60)
    known = clean(150)
    guard = Guard.fit(Counting(), [KDE()], known, fpr=0.05, seed=3)
    assert len(guard.calibration[0]) == 60
    again = Guard.fit(Counting(), [KDE()], known, fpr=0.05, seed=3)
    assert torch.equal(guard.calibration[0], again.calibration[0])
    assert len(Guard.fit(Counting(), [KDE()], known[torch.arange(60)], fpr=0.05).calibration[0]) == 60
