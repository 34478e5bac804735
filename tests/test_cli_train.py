"""`mithridate train`: what it writes, what it refuses to overwrite, that a killed run goes on, and what the judge follows."""

from __future__ import annotations

import csv
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mithridate import datasets, infect, loops
from mithridate.cli.main import main
from mithridate.data import Samples
from mithridate.files import sha256
from mithridate.judge import accuracy, attack_success
from mithridate.methods import find
from mithridate.nn.resolve import resolve
from mithridate.reporting import Learned, Watch, unwatched
from mithridate.roles import REGISTRY, Progress, register, silent

Run = Callable[..., tuple[int, str]]
PLAIN = ("--defense", "plain", "--arch", "lenet", "--quiet")


@pytest.fixture(scope="module")
def poison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a poisoned training set of `mithridate infect` and what the attacker did."""
    folder = tmp_path_factory.mktemp("poison")
    with pytest.MonkeyPatch.context() as patch:
        flags = ("--rate", "0.1", "--target", "3", "--no-train", "--export", "folder", "--quiet")
        patch.setattr(sys, "argv", ["mithridate", "infect", "--out", str(folder), *flags])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return folder


@pytest.fixture
def informer() -> Iterator[str]:
    """The name of a trainer that suspects the ten images with the largest sum of pixels, and keeps a loss of every image."""

    @dataclass(frozen=True, kw_only=True)
    class Informer:
        """Tells all it can.

        Attributes:
            share: of nothing in particular.
        """

        share: float = 0.5

        def learn(
            self,
            model: nn.Module,
            samples: Samples,
            *,
            seed: int = 0,
            progress: Progress = silent,
            checkpoint: Path | None = None,
            watch: Watch = unwatched,
        ) -> Learned:
            """The given model, untrained."""
            bright = samples.images.float().flatten(1).sum(1)
            suspected = bright >= bright.sort(descending=True).values[9]
            assert checkpoint is not None
            for stage in ("", "-isolating"):
                checkpoint.with_name(f"{checkpoint.stem}{stage}.safetensors").touch()
            for epoch in (1, 2, 3):
                watch("isolating", epoch, model)
            return Learned(model, bright, suspected, torch.rand(3, len(samples)), ("ten are bright",))

        def train(self, model: nn.Module, samples: Samples, **rest: Any) -> nn.Module:
            """The model of `learn`."""
            return self.learn(model, samples, **rest).model

    register("trainer", scope=(), cost="nothing", paper="none")(Informer)
    name = __name__.rpartition(".")[2]
    yield name
    REGISTRY.pop(name)


def test_a_model_is_trained_and_its_card_written(run: Run, poison: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "model.safetensors"
    code, said = run("train", poison / "train", *PLAIN, "--epochs", "10", "--defense.lr", "0.05", "--defense.pad", "1", "--out", out)
    assert code == 0 and "1,297 images of 10 classes" in said, said
    assert {path.name for path in out.parent.iterdir()} == {"model.safetensors", "model.json", "model.suspects.csv", "model.html"}
    card = json.loads(out.with_suffix(".json").read_text())
    assert card["arch"] == "lenet" and card["input"] == [1, 16, 16] and card["classes"] == list("0123456789")
    assert card["defense"] == "plain:epochs=10,lr=0.05,pad=1,flip=true" and card["sha256"] == sha256(out)
    assert accuracy(resolve(str(out)).model, datasets.images("digits:test")).value > 0.5
    assert (out.parent / "model.suspects.csv").read_text() == "rank,row,file,label,class,score,flagged\n"
    assert "which looks for no poison" in (out.parent / "model.html").read_text("utf-8")


def test_a_killed_run_goes_on_to_the_same_bytes(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("train", "digits", *PLAIN, "--epochs", "3", "--out")
    assert run(*arguments, tmp_path / "whole.safetensors")[0] == 0
    one_epoch = loops._Run.epoch

    def killed(self: Any, epoch: int) -> None:
        if epoch == 2:
            raise KeyboardInterrupt
        one_epoch(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(loops._Run, "epoch", killed)
        code, _ = run(*arguments, tmp_path / "cut.safetensors")
    assert code in (2, 130)  # as the installed typer has it
    assert not (tmp_path / "cut.safetensors").exists() and (tmp_path / ".cut.checkpoint.safetensors").exists()
    epochs = []

    def counted(self: Any, epoch: int) -> None:
        epochs.append(epoch)
        one_epoch(self, epoch)

    monkeypatch.setattr(loops._Run, "epoch", counted)
    assert run(*arguments, tmp_path / "cut.safetensors")[0] == 0
    assert epochs == [2]
    assert sha256(tmp_path / "cut.safetensors") == sha256(tmp_path / "whole.safetensors")
    assert not list(tmp_path.glob(".*"))


def test_what_a_defense_tells_is_written_and_judged(run: Run, poison: Path, tmp_path: Path, informer: str) -> None:
    out = tmp_path / "model.safetensors"
    truth = ("--truth", poison / "truth.json", "--judge-on", "digits:test:200")
    code, said = run("train", poison / "train", "--defense", informer, "--arch", "lenet", *truth, "--out", out, "--quiet")
    assert code == 0, said
    assert "10 of 1,297 images are held for poisoned" in said and "ten are bright" in said
    with (tmp_path / "model.suspects.csv").open(newline="") as file:
        suspects = list(csv.DictReader(file))
    assert [row["rank"] for row in suspects] == [str(i) for i in range(1, 11)]
    samples = datasets.images(poison / "train")
    brightest = samples.images.float().flatten(1).sum(1).argsort(descending=True)[:10]
    assert {row["file"] for row in suspects} == {samples.names[int(row)] for row in brightest}
    model, images = resolve(str(out)).model, datasets.images("digits:test:200")
    success, _ = attack_success(model, images, infect.read_key(poison / "truth.json"))
    assert f"judge: clean accuracy {accuracy(model, images).value:.1%}, attack success {success.value:.1%}" in said
    page = (tmp_path / "model.html").read_text("utf-8")
    drawn = json.loads(page.partition('id="suspects">')[2].partition("</script>")[0])
    assert [step for step, *_ in drawn["course"]] == ["start", "isolating 1", "isolating 2", "isolating 3", "end"]
    assert [group["count"] for group in drawn["losses"]["found"]] == [10, 1287]
    assert sum(group["count"] for group in drawn["losses"]["truth"]) == 1297 and drawn["losses"]["truth"][0]["count"] == 130
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("images", "recipe", "verdict"),
    [
        ("digits:train:100", (), "too little was learned early to say whether any is poisoned."),
        ("digits", ("--defense.batch-size", "16", "--defense.lr", "0.02"), "abl suspects none of them."),
    ],
)
def test_none_is_said_to_be_suspected_only_where_enough_was_learned(
    run: Run, tmp_path: Path, images: str, recipe: tuple[str, ...], verdict: str
) -> None:
    out = tmp_path / "model.safetensors"
    code, said = run("train", images, "--defense", "abl@quick", "--epochs", "5", *recipe, "--arch", "lenet", "--out", out, "--quiet")
    assert code == 0 and verdict in said, said
    assert ("smaller batches" in said) == ("too little" in verdict)
    assert verdict in out.with_suffix(".html").read_text("utf-8")


def test_the_defense_is_told_nothing_of_the_truth(run: Run, poison: Path, tmp_path: Path) -> None:
    arguments = ("train", poison / "train", *PLAIN, "--epochs", "1", "--out")
    assert run(*arguments, tmp_path / "a.safetensors")[0] == 0
    truth = ("--truth", poison / "truth.json", "--judge-on", "digits:test:100")
    assert run(*arguments, tmp_path / "b.safetensors", *truth)[0] == 0
    assert sha256(tmp_path / "a.safetensors") == sha256(tmp_path / "b.safetensors")


def test_only_its_own_weights_are_replaced(run: Run, tmp_path: Path) -> None:
    foreign, card = tmp_path / "theirs.safetensors", tmp_path / "card.json"
    foreign.write_bytes(b"theirs")
    card.write_text('{"arch": "lenet"}')
    for out in (foreign, card.with_suffix(".safetensors")):
        code, said = run("train", "digits", *PLAIN, "--epochs", "1", "--out", out)
        assert code == 2 and "out must be new, or weights that mithridate train wrote before" in said
    assert foreign.read_bytes() == b"theirs" and not card.with_suffix(".safetensors").exists()
    for epochs in (1, 2):
        assert run("train", "digits:train:50", *PLAIN, "--epochs", epochs, "--out", tmp_path / "ours.safetensors")[0] == 0
    assert "epochs=2" in json.loads((tmp_path / "ours.json").read_text())["defense"]


def test_a_model_of_one_class_can_be_trained_and_read_back(run: Run, tmp_path: Path) -> None:
    ones = datasets.images("digits:train")
    datasets.write_folder(ones[ones.labels == 1][:20], tmp_path / "all")
    for empty in (folder for folder in (tmp_path / "all").iterdir() if folder.is_dir() and not any(folder.iterdir())):
        empty.rmdir()
    code, said = run("train", tmp_path / "all", *PLAIN, "--epochs", "1", "--out", tmp_path / "model.safetensors")
    assert code == 0 and "one class only" in said
    assert resolve(str(tmp_path / "model.safetensors")).card["classes"][0] == "1"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "images"),
        ("digits", "--out"),
        ("digits --out x.pt", "out must end in .safetensors, got 'x.pt'"),
        ("digits --out FOLDER", "cannot write FOLDER: it is a folder"),
        ("nowhere --out x.safetensors", "'nowhere'"),
        ("digits --out x.safetensors --size 0", "size must be at least 1, got 0"),
        ("digits --out x.safetensors --defense plane", "did you mean plain?"),
        ("digits --out x.safetensors --epochs 0", "epochs must be at least 1, got 0"),
        ("digits --out x.safetensors --defense.lr=-1", "lr must be positive and finite, got -1.0"),
        ("digits --out x.safetensors --defense.gama 1", "has no field 'gama'"),
        ("digits --out x.safetensors --detector.least 1", "no such option: --detector.least"),
        ("digits --out x.safetensors --arch lenett", "lenet"),
        ("digits --out x.safetensors --judge-on digits", "--judge-on needs --truth"),
        ("digits --out x.safetensors --truth none.json", "none.json: not a truth.json"),
        (
            "POISON --out x.safetensors --truth TRUTH --judge-on POISON",
            "--judge-on must hold images that are not",
        ),
    ],
)
def test_every_failure_is_one_clear_line(
    line: str, says: str, run: Run, poison: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.safetensors").mkdir()
    places = {"FOLDER": str(tmp_path / "f.safetensors"), "POISON": str(poison / "train"), "TRUTH": str(poison / "truth.json")}
    for name, path in places.items():
        line, says = line.replace(name, path), says.replace(name, path)
    chosen = () if "--defense " in line else ("--defense", "plain")
    code, said = run("train", *line.split(), *chosen)
    assert code == 2 and says in said, said
    assert said.startswith("mithridate: ") and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["f.safetensors"]


def test_the_page_on_training_runs_as_printed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)`", text, flags=re.MULTILINE)) == {entry.name for entry in find("*", "screen")}
    monkeypatch.chdir(tmp_path)
    said = ""
    for line in "".join(re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)).replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line)
        code, said = run(*arguments)
        assert program == "mithridate" and code == 0, said
    assert said.count("judge: ") == 1
    for name in ("screened/ranking.csv", "screened/screen.html", "models/model.json", "models/model.suspects.csv", "models/model.html"):
        assert (tmp_path / name).is_file()
