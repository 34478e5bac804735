"""One quick audit of a small victim: every part of the report, and nothing of the truth in what a defender says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mithridate import audit as auditing
from mithridate import infect
from mithridate.audit import Outcome, Settings, Subject, audit, write
from mithridate.audit.demo import make as make_demo
from mithridate.data import Samples
from mithridate.datasets import Dataset, load
from mithridate.defenses.trainers.plain import Plain
from mithridate.errors import BadSpec
from mithridate.guard import Guard
from mithridate.judge import Key, attack_success
from mithridate.nn.modes import predict
from mithridate.nn.resolve import resolve
from mithridate.report.schema import AuditReport
from mithridate.spec import to_spec
from mithridate.threats.dose import Dose
from mithridate.threats.poison import stamp
from mithridate.threats.triggers.badnets import BadNets

TRIGGER, TARGET = BadNets(pattern="white"), 3
KEY = Key(TRIGGER, TARGET, to_spec(TRIGGER))
QUICK = Settings(
    inspectors=("neural_cleanse:steps=25,batch_size=8", "adversarial_labels:steps=2"),
    evasions=("pgd:eps=0.01,steps=2", "pgd:eps=0.1,steps=2"),
    repair="aft:epochs=2,adversarial=1,steps=2,pad=0",
    fpr=0.05,
    robust_images=20,
)


class Case:
    """A victim of ten digits in 16x16, what its owner has, and fresh images for the judge."""

    def __init__(self) -> None:
        digits = load("digits")
        self.clean, rest = digits.train.split(200, seed=0)
        trainer = Plain(epochs=8, batch_size=64, lr=0.02, pad=0, precision="fp32")
        plan = infect.Plan(architecture="lenet", attack=TRIGGER, dose=Dose(target=TARGET, rate=0.1), trainer=trainer)
        victim = infect.make(plan, Dataset("digits", rest, digits.test, flips=False))
        self.model, self.training, self.truth = victim.model, victim.data.training[:400], victim.data.truth
        good, bad, self.fresh = digits.test.split(40, 40, seed=0)
        images = torch.cat([good.images, stamp(TRIGGER, bad).images])
        self.suspect = Samples(images, torch.zeros(80, dtype=torch.int64), digits.test.classes, tuple(f"{i}.png" for i in range(80)))

    def subject(self, **changes: Any) -> Subject:
        return replace(Subject(model=self.model, clean=self.clean, suspect=self.suspect, training=self.training), **changes)


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


@pytest.fixture(scope="module")
def told(case: Case) -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def judged(case: Case, told: list[tuple[str, int, int]]) -> Outcome:
    def progress(task: str, done: int, total: int, note: str = "") -> None:
        told.append((task, done, total))

    before = {name: t.clone() for name, t in case.model.state_dict().items()}
    modes = [m.training for m in case.model.modules()]
    torch.manual_seed(99)
    state = torch.get_rng_state()
    outcome = audit(case.subject(), QUICK, key=KEY, fresh=case.fresh, progress=progress)
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn from the global generator"
    assert all(torch.equal(t, before[name]) for name, t in case.model.state_dict().items()), "the model stays bit-identical"
    assert [m.training for m in case.model.modules()] == modes
    return outcome


@pytest.fixture(scope="module")
def stranger(case: Case) -> Outcome:
    return audit(case.subject(), QUICK)


def defenders_part(report: AuditReport) -> dict[str, Any]:
    found = report.model_dump(mode="json")
    for part in ("truth", "seconds"):
        found.pop(part)
    return found


def test_every_part_is_there(case: Case, judged: Outcome) -> None:
    report = judged.report
    right = predict(case.model, case.clean).argmax(1) == case.clean.labels
    assert report.clean_accuracy == pytest.approx(float(right.float().mean())) and report.clean_images == 200
    assert report.clean_accuracy_interval[0] < report.clean_accuracy < report.clean_accuracy_interval[1] or report.clean_accuracy == 1
    assert [e.inspector.partition(":")[0] for e in report.evidence] == ["neural_cleanse", "adversarial_labels"]
    assert (report.infected, report.target, report.p_value) == tuple(
        getattr(report.evidence[0], n) for n in ("infected", "target", "p_value")
    )
    assert all(len(e.per_class) == 10 for e in report.evidence)
    shown = judged.pictures.clean
    assert shown is not None and torch.equal(shown.images, case.clean.images[::17]), "a dozen of the 200, spread evenly"
    assert [(r.eps, r.count) for r in report.robust_accuracy] == [(0.01, 20), (0.1, 20)]
    assert report.robust_accuracy[0].accuracy >= report.robust_accuracy[1].accuracy
    assert report.flagged is not None and report.training is not None and report.repair is not None and report.truth is not None
    assert report.repair.inspected_after is not None and len(report.repair.robust_after) == 2
    assert report.skipped == [] and report.classes == list("0123456789")
    assert list(report.seconds) == ["accuracy", "inspection", "robustness", "guard", "screening", "repair"]
    assert report.verdict.endswith(".")
    assert report.config["fpr"] == 0.05 and report.config["seed"] == 0 and report.config["detectors"][0]["method"] == "kde"


def test_flags_are_those_of_the_guard(case: Case, judged: Outcome) -> None:
    assert judged.guard is not None and judged.report.flagged is not None
    answer, said = judged.guard.answer(case.suspect), judged.report.flagged
    assert said.count == int(answer.flagged.sum()) == len(said.files) and said.of == 80
    assert set(said.files) == {f"{i}.png" for i in answer.flagged.nonzero().flatten().tolist()}
    scores = [float(answer.scores["kde"][int(name.removesuffix(".png"))]) for name in said.files]
    assert scores == sorted(scores, reverse=True), "most suspicious first"
    assert said.asked_fpr == 0.05 and said.realised_interval[0] <= said.realised_fpr <= said.realised_interval[1]


def test_the_guard_never_saw_the_images_its_rate_is_measured_on(case: Case, judged: Outcome) -> None:
    assert judged.guard is not None
    assert len(judged.guard.calibration[0]) == 150
    assert len(judged.guard.fitted()[0].get_buffer("bank")) == 150


def test_truth_is_what_the_judge_measures(case: Case, judged: Outcome) -> None:
    truth = judged.report.truth
    assert truth is not None and (truth.target, truth.trigger) == (TARGET, KEY.spec)
    assert truth.asr_before == attack_success(case.model, case.fresh, KEY)[0].value > 0.9
    assert truth.asr_after == attack_success(judged.repaired, case.fresh, KEY)[0].value
    assert truth.clean_accuracy_before > 0.85 and truth.tpr is not None and truth.auroc is not None


def test_the_information_barrier(judged: Outcome, stranger: Outcome) -> None:
    """With the key or without: what the defenders say is the same, to the last bit, and holds no word of the trigger."""
    assert stranger.report.truth is None
    assert defenders_part(judged.report) == defenders_part(stranger.report)
    assert all(torch.equal(a, b) for a, b in zip(judged.repaired.parameters(), stranger.repaired.parameters(), strict=True))
    for picture, other in ((judged.pictures.flagged, stranger.pictures.flagged), (judged.pictures.training, stranger.pictures.training)):
        assert picture is not None and other is not None and torch.equal(picture.images, other.images)
    assert stranger.pictures.truth is None and "badnets" not in json.dumps(defenders_part(judged.report))


def test_the_json_is_valid_and_comes_back(judged: Outcome, tmp_path: Path) -> None:
    write(judged, tmp_path)
    text = (tmp_path / "report.json").read_text()
    assert AuditReport.model_validate_json(text) == judged.report
    found = json.loads(text)
    promised = "schema_version clean_accuracy infected target p_value robust_accuracy flagged repair truth"
    assert set(promised.split()) <= found.keys()
    assert set(found["robust_accuracy"][0]) >= {"attack", "eps", "accuracy"}
    assert "NaN" not in text and "Infinity" not in text


def test_the_files(case: Case, judged: Outcome, tmp_path: Path) -> None:
    write(judged, tmp_path, {"arch": "lenet", "classes": 10, "input": [1, 16, 16]})
    files = ["guard.safetensors", "guard.toml", "repaired.json", "repaired.safetensors", "report.html", "report.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == files
    repaired = resolve(str(tmp_path / "repaired.safetensors")).model
    assert torch.equal(predict(repaired, case.fresh), predict(judged.repaired, case.fresh))
    again = Guard.load(tmp_path, case.model).answer(case.suspect)
    assert torch.equal(again.flagged, judged.guard.answer(case.suspect).flagged)  # type: ignore[union-attr]
    page = (tmp_path / "report.html").read_text()
    assert "<html" in page and "http://" not in page.replace("http://www.w3.org", "") and 'src="http' not in page
    assert judged.report.verdict.split("“")[0][:30] in page


def test_an_old_verdict_never_stands_beside_new_weights(judged: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(judged, tmp_path)

    def fail(*_: object) -> str:
        raise ArithmeticError

    monkeypatch.setattr(auditing.writing, "render", fail)
    with pytest.raises(ArithmeticError):
        write(judged, tmp_path)
    assert not (tmp_path / "report.json").exists()


def test_progress_is_told(told: list[tuple[str, int, int]], judged: Outcome) -> None:
    tasks = {task for task, _, _ in told}
    assert {"robust accuracy", "kde"} <= tasks and any(task.startswith("repairing") for task in tasks) and len(tasks) >= 5
    assert all(0 < done <= total for _, done, total in told)


CHEAP = replace(QUICK, inspectors=("neural_cleanse:steps=1",), evasions=(), repair="aft:epochs=1,adversarial=0,pad=0,universal=0")


def test_what_is_not_given_is_null(case: Case, tmp_path: Path) -> None:
    outcome = audit(case.subject(suspect=None, training=None), CHEAP)
    report = outcome.report
    assert report.flagged is None and report.training is None and report.truth is None and report.robust_accuracy == []
    assert report.loading.source == "a module in memory" and report.loading.parameters == sum(p.numel() for p in case.model.parameters())
    write(outcome, tmp_path)
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["flagged"] is found["training"] is found["truth"] is None
    assert "suspect" not in report.verdict


def test_a_key_needs_fresh_images(case: Case) -> None:
    with pytest.raises(ValueError, match="fresh must be given with a key, got None"):
        audit(case.subject(suspect=None, training=None), CHEAP, key=KEY)


def test_too_few_clean_images_for_a_guard(case: Case) -> None:
    few = case.subject(clean=case.clean[:20], training=None)
    with pytest.raises(ValueError, match="clean must hold at least 26 images for fpr 0.05, got 20"):
        audit(few, CHEAP)
    outcome = audit(replace(few, suspect=None), CHEAP, key=KEY, fresh=case.fresh)
    assert outcome.guard is None and outcome.report.truth is not None and outcome.report.truth.tpr is None
    assert [line for line in outcome.report.skipped if line.startswith("guard: ")] and outcome.report.repair is not None


def test_hardly_any_clean_images(case: Case) -> None:
    with pytest.raises(ValueError, match="clean must hold at least 8 images, got 7"):
        audit(case.subject(clean=case.clean[:7]), CHEAP)
    with pytest.raises(ValueError, match="clean must hold at least 10 images, got 9"):
        audit(case.subject(clean=case.clean[:9], suspect=None), CHEAP)


def test_a_budget_that_is_spent_skips_and_says_so(case: Case, tmp_path: Path) -> None:
    outcome = audit(case.subject(), replace(QUICK, inspectors=("neural_cleanse:steps=4",), seconds=1e-6), key=KEY, fresh=case.fresh)
    report = outcome.report
    text = " | ".join(report.skipped)
    assert all(step in text for step in ("neural_cleanse", "robust accuracy", "screening", "aft"))
    assert report.robust_accuracy == [] and report.training is None and report.repair is None
    assert report.flagged is not None and report.evidence, "the verdict and the guard are always given"
    assert outcome.repaired is case.model and report.truth is not None and report.truth.asr_before == report.truth.asr_after
    write(outcome, tmp_path)
    assert not (tmp_path / "repaired.safetensors").exists()
    assert AuditReport.model_validate_json((tmp_path / "report.json").read_text()) == report


def test_a_large_budget_changes_nothing(case: Case) -> None:
    quick = replace(CHEAP, robust_images=5)
    subject = case.subject(training=None)
    first, again = (defenders_part(audit(subject, replace(quick, seconds=s)).report) for s in (None, 10_000.0))
    assert first["config"].pop("seconds", None) is None and again["config"].pop("seconds") == 10_000.0
    assert first == again


def test_classes_without_a_clean_image_do_not_matter(case: Case) -> None:
    """The user's images may know fewer classes than the model, and predictions of the others need a name too."""
    some = case.clean[(case.clean.labels < 4).nonzero().flatten()]
    clean = Samples(some.images, some.labels)
    assert len(clean.classes) == 4
    settings = replace(CHEAP, evasions=("pgd:eps=0.3,steps=3",))
    report = audit(case.subject(clean=clean, training=None), settings).report
    assert report.classes == list("0123456789")


class Wrong(nn.Module):
    def __init__(self, give: Any) -> None:
        super().__init__()
        self.give, self.weight = give, nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Any:
        return self.give(x)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"suspect": lambda c: Samples(torch.zeros(3, 1, 8, 8), torch.zeros(3, dtype=torch.int64))},
         r"suspect images must have the shape \(1, 16, 16\) of the clean ones, got \(1, 8, 8\)"),
        ({"training": lambda c: Samples(torch.zeros(3, 3, 16, 16), torch.zeros(3, dtype=torch.int64))},
         r"training images must have the shape .*got \(3, 16, 16\)"),
        ({"suspect": lambda c: c.suspect[:0]}, "suspect must hold at least one image, got none"),
        ({"model": lambda c: Wrong(lambda x: (x, x))}, "model must return a tensor of logits .*got tuple"),
        ({"model": lambda c: Wrong(lambda x: x.flatten(1)[:, :4])}, "clean images have 10 classes, the model gives 4 logits"),
        ({"model": lambda c: Wrong(lambda x: x.flatten(1) / 0)}, "model must return finite logits"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_before_anything_is_done(case: Case, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        audit(case.subject(**{name: make(case) for name, make in changes.items()}), CHEAP)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fpr": 0.0}, r"fpr must lie in \(0, 1\), got 0.0"), ({"robust_images": 0}, "robust_images must be at least 1, got 0"),
        ({"seconds": 0}, "seconds must be positive, got 0"), ({"seconds": float("nan")}, "seconds must be positive, got nan"),
        ({"inspectors": ()}, "inspectors and detectors must each name"), ({"detectors": ()}, "inspectors and detectors must each name"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(QUICK, **changes)


@pytest.mark.parametrize("changes", [{"inspectors": ("kde",)}, {"evasions": ("nothing",)}, {"repair": "aft:epoch=1"}, {"screen": "pgd"}])
def test_unknown_methods_are_named_at_once(case: Case, changes: dict[str, Any]) -> None:
    with pytest.raises(BadSpec, match=r"unknown|has no field"):
        audit(case.subject(), replace(QUICK, **changes))


@pytest.mark.parametrize("infected", [True, False])
def test_the_demo_makes_its_subject(infected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training is cut short here; whether the demo finds what it hides is what its own bar measures."""
    monkeypatch.setattr("mithridate.audit.demo.Plain", lambda **fields: Plain(**fields | {"epochs": 1}))
    demo, again, other = (make_demo(infected=infected, seed=seed) for seed in (5, 5, 6))
    assert (demo.key is not None) == infected
    assert len(demo.subject.clean) == 500 and len(demo.subject.suspect) == 200 and len(demo.fresh) == 500  # type: ignore[arg-type]
    assert not demo.subject.suspect.labels.any(), "the stranger does not say what they are"  # type: ignore[union-attr]
    white = (demo.subject.suspect.images[:, 0, -3:, -3:] == 255).flatten(1).all(1)  # type: ignore[union-attr]
    assert int(white.sum()) == 100 * infected
    assert torch.equal(demo.subject.suspect.images, again.subject.suspect.images)  # type: ignore[union-attr]
    assert not torch.equal(demo.subject.suspect.images, other.subject.suspect.images)  # type: ignore[union-attr]
    assert all(torch.equal(a, b) for a, b in zip(demo.subject.model.parameters(), again.subject.model.parameters(), strict=True))
