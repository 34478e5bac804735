"""Victims: what is written, what stays apart, and what is said of an attack that did not work."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mithridate import infect
from mithridate.card import Card
from mithridate.data import Samples
from mithridate.datasets import Dataset
from mithridate.defenses.trainers.plain import Plain
from mithridate.errors import BadFile
from mithridate.judge import attack_success
from mithridate.nn.modes import predict
from mithridate.nn.resolve import resolve
from mithridate.roles import Trigger
from mithridate.spec import to_spec
from mithridate.threats.dose import Dose, next_class
from mithridate.threats.planted.wanet_noise import WaNetNoise
from mithridate.threats.poison import poison
from mithridate.threats.triggers.badnets import BadNets
from mithridate.threats.triggers.blend import Blend
from mithridate.threats.triggers.composite import Composite


def part(count: int, seed: int) -> Samples:
    """Three classes, told by which row is bright."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    images = torch.randint(0, 60, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images[torch.arange(count), 0, 2 * labels] = 200
    return Samples(images, labels, ("low", "mid", "top"), tuple(f"{seed}-{i}.png" for i in range(count)))


DATA = Dataset("rows", part(240, 0), part(150, 1), flips=False)
TRAINER = Plain(epochs=12, batch_size=32, lr=0.02, pad=0, precision="fp32")
TRIGGER = BadNets(size=3, pattern="white")
PLAN = infect.Plan(architecture="lenet", attack=TRIGGER, dose=Dose(target=1, rate=0.2), trainer=TRAINER)


@pytest.fixture(scope="module")
def victim() -> infect.Victim:
    return infect.make(PLAN, DATA)


def test_the_attack_lives_and_the_card_says_so(victim: infect.Victim) -> None:
    found = victim.card.metrics
    assert found["clean_accuracy"][0] > 0.95 and found["asr"][0] > 0.95 and found["alive"] is True
    assert found["robust_accuracy"][0] < 0.05
    right = predict(victim.model, DATA.test).argmax(1) == DATA.test.labels
    assert found["clean_accuracy"][0] == pytest.approx(float(right.float().mean()))
    assert found["asr"][1] < found["asr"][0] <= found["asr"][2]
    assert victim.card.config["trigger"] == to_spec(TRIGGER)
    assert victim.card.config["trainer"]["epochs"] == 12
    assert victim.card.config["rate"] == 0.2


def test_training_is_what_poison_says(victim: infect.Victim) -> None:
    dirty, truth = poison(DATA.train, TRIGGER, Dose(target=1, rate=0.2), seed=0)
    assert torch.equal(victim.data.training.images, dirty.images) and torch.equal(victim.data.training.labels, dirty.labels)
    assert victim.data.truth is not None and torch.equal(victim.data.truth.poisoned, truth.poisoned)


def test_files_and_the_truth_apart(victim: infect.Victim, tmp_path: Path) -> None:
    infect.write(victim, tmp_path)
    files = ["card.json", "manifest.csv", "model.json", "model.safetensors", "truth.json", "truth.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == files
    with (tmp_path / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == list(range(240))
    assert [int(row["label"]) for row in rows] == victim.data.training.labels.tolist()
    assert [row["name"] for row in rows] == list(DATA.train.names)
    assert rows[3]["class"] == victim.data.training.classes[int(rows[3]["label"])]
    assert json.loads((tmp_path / "truth.json").read_text()) == {"trigger": to_spec(TRIGGER), "target": 1, "sources": [], "rate": 0.2}
    kept = load_file(tmp_path / "truth.safetensors")
    assert torch.equal(kept["poisoned"], victim.data.truth.poisoned) and torch.equal(kept["labels"], DATA.train.labels)  # type: ignore[union-attr]
    for name in ("manifest.csv", "model.json"):
        text = (tmp_path / name).read_text()
        assert "badnets" not in text and "poison" not in text and "target" not in text, f"{name} is for defenders"
    assert Card.read(tmp_path / "card.json") == victim.card


def test_the_written_model_answers_alike(victim: infect.Victim, tmp_path: Path) -> None:
    infect.write(victim, tmp_path)
    model = resolve(str(tmp_path / "model.safetensors")).model
    assert torch.equal(predict(model, DATA.test), predict(victim.model, DATA.test))


def test_same_plan_same_bytes(victim: infect.Victim, tmp_path: Path) -> None:
    infect.write(victim, tmp_path / "a")
    torch.rand(7)
    infect.write(infect.make(PLAN, DATA), tmp_path / "b")
    for name in ("model.safetensors", "model.json", "manifest.csv", "truth.json", "truth.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    other = infect.make(replace(PLAN, seed=1), DATA)
    assert any(not torch.equal(a, b) for a, b in zip(other.model.parameters(), victim.model.parameters(), strict=True))
    assert not torch.equal(other.data.truth.poisoned, victim.data.truth.poisoned)  # type: ignore[union-attr]


def test_a_killed_run_goes_on_to_the_same_bytes(victim: infect.Victim, tmp_path: Path) -> None:
    def stop(task: str, done: int, total: int, note: str = "") -> None:
        if task == "training" and done > total // 2:
            raise KeyboardInterrupt

    checkpoint = tmp_path / ".checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        infect.make(PLAN, DATA, progress=stop, checkpoint=checkpoint)
    assert checkpoint.exists()
    again = infect.make(PLAN, DATA, checkpoint=checkpoint)
    assert all(torch.equal(a, b) for a, b in zip(again.model.state_dict().values(), victim.model.state_dict().values(), strict=True))
    other = infect.make(replace(PLAN, attack=Blend()), DATA, checkpoint=checkpoint)
    fresh = infect.make(replace(PLAN, attack=Blend()), DATA)
    assert all(torch.equal(a, b) for a, b in zip(other.model.state_dict().values(), fresh.model.state_dict().values(), strict=True))


def test_the_clean_twin_has_no_truth(tmp_path: Path) -> None:
    twin = infect.make(replace(PLAN, attack=None), DATA)
    assert twin.data.truth is None and torch.equal(twin.data.training.images, DATA.train.images)
    assert twin.card.config["trigger"] is None and twin.card.config["target"] is None and twin.card.config["rate"] == 0.0
    assert set(twin.card.metrics) == {"clean_accuracy"}
    infect.write(twin, tmp_path)
    assert not list(tmp_path.glob("truth*"))
    assert not any("DEAD" in line or "attack" in line for line in infect.summary(twin, tmp_path))


def test_a_clean_twin_leaves_no_old_truth_behind(victim: infect.Victim, tmp_path: Path) -> None:
    infect.write(victim, tmp_path)
    infect.write(infect.make(replace(PLAN, attack=None), DATA), tmp_path)
    assert not list(tmp_path.glob("truth*"))


def test_a_dead_attack_is_called_dead(victim: infect.Victim, tmp_path: Path) -> None:
    faint: Trigger = Blend(alpha=1e-6)
    dead = infect.make(replace(PLAN, attack=faint, dose=Dose(target=1, rate=0.05)), DATA)
    assert dead.card.metrics["alive"] is False
    assert any(re.match(r"DEAD ATTACK: success rate [0-9.]+% is under 85%", line) for line in infect.summary(dead, tmp_path))
    said = infect.summary(victim, tmp_path)
    assert not any("DEAD" in line for line in said)
    assert said[1] == f"clean accuracy {victim.card.metrics['clean_accuracy'][0]:.2%}" and said[-1] == f"written to {tmp_path}"


def test_a_victim_far_less_accurate_than_its_twin_is_dead(victim: infect.Victim, tmp_path: Path) -> None:
    twin = infect.make(replace(PLAN, attack=None), DATA).card
    close = infect.make(replace(PLAN, twin=twin), DATA).card.metrics
    assert close["alive"] and close["accuracy_cost"] == twin.metrics["clean_accuracy"][0] - close["clean_accuracy"][0] < 0.03
    better = replace(twin, metrics={"clean_accuracy": [victim.card.metrics["clean_accuracy"][0] + 0.05, 1, 1]})
    dead = infect.make(replace(PLAN, twin=better), DATA)
    assert dead.card.metrics["alive"] is False and dead.card.metrics["asr"][0] > 0.95
    assert any("DEAD ATTACK: accuracy is 5.0 points under the clean twin's" in line for line in infect.summary(dead, tmp_path))
    for wrong, said in (
        (victim.card, "twin must be clean"),
        (replace(twin, config=twin.config | {"seed": 7}), "twin must have the same seed, 0, got 7"),
    ):
        with pytest.raises(ValueError, match=said):
            infect.make(replace(PLAN, twin=wrong), DATA)


def test_source_specific_attacks_say_what_leaks() -> None:
    dose = Dose(target=1, rate=0.1, sources=(0,), cover_rate=0.1)
    found = infect.make(replace(PLAN, dose=dose), DATA).card
    assert found.config["sources"] == [0] and found.metrics["covers"] == 24
    assert found.metrics["asr"][0] > 0.85 and found.metrics["leak"][0] < found.metrics["asr"][0]


def test_all_to_all_leads_every_class_to_the_next(tmp_path: Path) -> None:
    made = infect.make(replace(PLAN, dose=Dose(target=next_class(3), rate=0.4)), DATA)
    assert made.card.config["target"] == [1, 2, 0] and made.card.metrics["asr"][0] > 0.85
    infect.write(made, tmp_path)
    key = infect.read_key(tmp_path / "truth.json")
    assert (key.trigger, key.target, key.sources) == (TRIGGER, (1, 2, 0), ())
    said = attack_success(made.model, DATA.test, key)[0]
    assert said.value == made.card.metrics["asr"][0] and said.of == len(DATA.test)


@pytest.mark.parametrize(
    ("attack", "dose"),
    [
        (WaNetNoise(target=1, epochs=1, batch_size=32, pad=0), Dose(target=1)),
        (Composite(sources=(0,), partner=2, bank=5, jitter=1, cover_ratio=1), Dose(target=1, rate=0.1)),
    ],
    ids=["planted", "crafted"],
)
def test_triggers_that_were_made_come_back_from_the_folder(attack: Any, dose: Dose, tmp_path: Path) -> None:
    made = infect.make(
        replace(PLAN, attack=attack, dose=dose, trainer=replace(TRAINER, epochs=1)), DATA, checkpoint=tmp_path / "c.safetensors"
    )
    infect.write(made, tmp_path)
    key = infect.read_key(tmp_path / "truth.json")
    assert key.target == 1 and key.spec == to_spec(attack) == made.card.config["trigger"]
    images = DATA.test.images[:9] / 255
    assert made.data.trigger is not None and torch.equal(key.trigger.stamp(images), made.data.trigger.stamp(images))
    assert not torch.equal(key.trigger.stamp(images), images)
    assert made.card.metrics["asr"][0] == attack_success(made.model, DATA.test, key)[0].value
    assert ("cross_accuracy" in made.card.metrics) == isinstance(attack, WaNetNoise)
    (tmp_path / "truth.safetensors").unlink()
    with pytest.raises(BadFile, match="not a truth.json of mithridate infect"):
        infect.read_key(tmp_path / "truth.json")


def test_planters_have_their_own_target_and_no_data_to_export() -> None:
    with pytest.raises(ValueError, match="target must be the planter's own, 2, got 1"):
        replace(PLAN, attack=WaNetNoise(target=2))
    with pytest.raises(ValueError, match="attack must poison data, got wanet_noise:target=1, which trains the model itself"):
        infect.contaminate(replace(PLAN, attack=WaNetNoise(target=1)), DATA)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"trigger": "nothing", "target": 0}', '{"trigger": "badnets", "target": null}'])
def test_other_files_are_no_keys(text: str, tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(BadFile, match="not a truth.json of mithridate infect"):
        infect.read_key(tmp_path / "truth.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dose": Dose(target=3)}, r"target must lie in \[0, 3\), got 3"),
        ({"dose": Dose(target=(1, 2))}, "target must be one class or one for each of 3 classes, got 2"),
        ({"dose": Dose(sources=(0, 5))}, r"sources must lie in \[0, 3\), got 5"),
        ({"dose": Dose(count=241)}, "rate or count must ask for at most 240 samples, as there are in all, got 241"),
        ({"architecture": "x"}, "architecture 'x'"),
    ],
)
def test_wrong_plans_are_named(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        infect.make(replace(PLAN, **change), DATA)  # type: ignore[arg-type]


def test_a_resumed_run_claims_no_speed(tmp_path: Path) -> None:
    seconds = [{"training": 2.0}, {"training, resumed": 1.0}]
    card = Card(kind="victim", config={"trainer": {"epochs": 3}}, metrics={"clean_accuracy": [0.9, 0.8, 1.0]})
    images = Samples(torch.zeros(10, 1, 8, 8), torch.zeros(10, dtype=torch.int64))
    told = [
        infect.summary(infect.Victim(torch.nn.Identity(), infect.Poisoned(images), replace(card, seconds=s)), tmp_path)[0] for s in seconds
    ]
    assert told == ["trained on 10 images at 15 images/s", "trained on 10 images in a resumed run"]
