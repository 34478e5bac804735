"""The command line as a user meets it: exit codes, one clear line for every failure, JSON on stdout and nothing else there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mithridate.cli.flags import several, take
from mithridate.cli.main import main
from mithridate.errors import BadSpec

Run = Callable[..., tuple[int, str, str]]
SMALL = ("--inspector", "neural_cleanse:steps=20", "--attack", "pgd:eps=0.03,steps=2", "--repair", "aft:epochs=1,adversarial=0")
CODE = """
import torch
from torch import nn

def make():
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 10, bias=False))
    nn.init.normal_(model[1].weight, std=0.1, generator=torch.Generator().manual_seed(0))  # else it may be right by chance
    return model

def broken():
    raise RuntimeError("no" + chr(10) + "luck")

def number():
    return 3

def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(100, 10))

class Odd(nn.Module):
    def forward(self, images):
        raise KeyError("layer")
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs one command line in this process; gives exit status, stdout and stderr."""

    def once(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mithridate", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, shown.out, shown.err

    return once


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short-lived victim, the user's own code, color images of another size and a file that is no folder."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "own.py").write_text(CODE)
    (folder / "file").touch()
    draw = np.random.default_rng(0)
    for name in "0123456789":
        (folder / "color" / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(draw.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / "color" / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def victim(place: Path) -> Path:
    """A victim made by the command itself."""
    code, out = "from mithridate.cli.main import main; main()", str(place / "victim")
    command = [sys.executable, "-c", code, "infect", "--epochs", "2", "--target", "3", "--out", out]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return place / "victim" / "model.safetensors"


def one_line(shown: tuple[int, str, str]) -> str:
    """The message of a failed command, which must be one line on stderr, with exit status 2 and nothing on stdout."""
    code, out, err = shown
    assert code == 2, err
    assert out == ""
    assert err.startswith("mithridate: ") and err.endswith("\n") and err.count("\n") == 1, err
    return err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--bogus", "--bogus"),
        ("bogus", "bogus"),
        ("list --bogus", "--bogus"),
        ("list zzz", "zzz"),
        ("list --role king", "'king'"),
        ("list --detector.least 3 --role detector kde extra", "extra"),
        ("infect", "--out"),
        ("infect --rate abc --out x", "--rate"),
        ("infect --out x --dataset digit", "did you mean digits?"),
        ("infect --out x --trigger badnet", "did you mean badnets"),
        ("infect --out x --model lenett", "lenet"),
        ("infect --out x --target 11", "got 11"),
        ("infect --out x --rate 1.5", "got 1.5"),
        ("infect --out x --rate nan", "got nan"),
        ("infect --out x --size 0", "size must be at least 1"),
        ("infect --out x --epochs 0", "epochs must be at least 1, got 0"),
        ("infect --out x --export csv", "'csv'"),
        ("infect --out x --trainer.lr=-1", "lr"),
        ("infect --out x --trainer.rate 1", "has no field 'rate'"),
        ("infect --out x --trigger.size abc", "size='abc'"),
        ("infect --out x --detector.least 3", "no such option: --detector.least"),
        ("infect --out FILE", "FILE: File exists"),
        ("infect --out FILE/x", "FILE/x: Not a directory"),
        ("audit", "MODEL must be given"),
        ("audit --demo model.pt", "not both"),
        ("audit model.pt", "--clean"),
        ("audit model.pt other.pt --clean digits", "other.pt"),
        ("audit none.pt --clean digits", "none.pt: no such file"),
        ("audit none.py:make --clean digits", "none.py: no such file"),
        ("audit org/name --clean digits", "hub"),
        ("audit timm:resnet18 --clean digits", "timm"),
        ("audit CODE:make --clean nothing", "'nothing'"),
        ("audit CODE:make --clean digits:test:9999", "9999"),
        ("audit CODE:make --clean digits:test:7", "got 7"),
        ("audit CODE:missing --clean digits", "missing"),
        ("audit CODE:broken --clean digits", "no luck"),
        ("audit CODE:number --clean digits", "got int"),
        ("audit CODE:narrow --clean digits", "1x16x16"),
        ("audit CODE:Odd --clean digits", "layer"),
        ("audit CODE:make --clean COLOR", "does not take images of 3x"),
        ("audit CODE:make --clean digits:test:60 --suspect nowhere", "'nowhere'"),
        ("audit CODE:make --clean digits:test:60 --suspect digits:train:9", "at least 132 images"),
        ("audit CODE:make --clean digits:test:60 --suspect digits:test:60", "not among the clean ones, got 60 that all are"),
        ("audit CODE:make --clean digits:test:60 --out FILE", "FILE: File exists"),
        ("audit --demo --detctor kde", "--detctor"),
        ("audit --demo --detector kdee", "did you mean kde?"),
        ("audit --demo --detector aft", "detector 'aft'"),
        ("audit --demo --detector.bandwith 1", "did you mean bandwidth?"),
        ("audit --demo --detector.bandwidth", "needs a value"),
        ("audit --demo --detctor.bandwidth 1", "--detctor.bandwidth"),
        ("audit --demo --inspector.patience abc", "patience='abc'"),
        ("audit --demo --attack.eps -1", "eps"),
        ("audit --demo --fpr 2", "fpr must lie in (0, 1), got 2.0"),
        ("audit --demo --seconds nan", "seconds must be positive, got nan"),
        ("audit --demo --minutes -1", "seconds must be positive"),
        ("audit --demo --seconds 9 --minutes 1", "not both"),
        ("audit none.pt --clean digits --clean-twin", "--clean-twin"),
    ],
)
def test_every_failure_is_one_clear_line(line: str, says: str, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    names = {"FILE": str(place / "file"), "CODE": str(place / "own.py"), "COLOR": str(place / "color")}
    for name, path in names.items():
        line, says = line.replace(name, path), says.replace(name, path)
    assert says in one_line(run(*line.split()))


def test_a_defect_of_ours_is_not_taken_for_an_infected_model(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("mithridate.cli.main.take", fail)
    code, _, err = run("list")
    assert code == 2
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("mithridate: a defect of this program")


def test_names_cannot_write_to_the_terminal(run: Run, tmp_path: Path) -> None:
    err = one_line(run("audit", str(tmp_path / "\x1b[2Jx.pt"), "--clean", "digits"))
    assert "\x1b" not in err
    assert "\\x1b[2Jx.pt" in err


@pytest.mark.parametrize("arguments", [["--help"], ["audit", "--help"], ["infect", "--help"], ["list", "--help"], ["--version"]])
def test_help_is_light(arguments: list[str]) -> None:
    after = "print('ended', ended.code, 'torch' in sys.modules)"
    code = f"import sys; from mithridate.cli.main import main\ntry: main()\nexcept SystemExit as ended: {after}"
    shown = subprocess.run([sys.executable, "-W", "error", "-c", code, *arguments], check=True, capture_output=True, text=True)
    assert shown.stdout.splitlines()[-1] == "ended 0 False"
    assert shown.stderr == ""


def test_no_arguments_show_help(run: Run) -> None:
    code, out, err = run()
    assert (code, err) == (0, "")
    assert all(command in out for command in ("audit", "infect", "list"))


def test_list_prints_json_for_programs(run: Run) -> None:
    code, out, err = run("list", "k*", "--json")
    assert (code, err) == (0, "")
    (entry,) = json.loads(out)
    assert (entry["name"], entry["role"]) == ("kde", "detector")
    assert {"scope", "cost", "paper", "summary", "fields"} <= entry.keys()
    _, out, _ = run("list", "--role", "inspector", "--json")
    assert {entry["name"] for entry in json.loads(out)} >= {"neural_cleanse", "adversarial_labels"}


def test_list_never_breaks_a_name(run: Run) -> None:
    _, out, _ = run("list")
    assert "spectral_signature" in out


def test_infect_writes_what_it_says(victim: Path) -> None:
    out = victim.parent
    names = {"model.safetensors", "model.json", "manifest.csv", "truth.json", "truth.safetensors", "card.json"}
    assert {path.name for path in out.iterdir()} == names
    assert json.loads((out / "truth.json").read_text())["target"] == 3


def test_infect_can_only_write_the_poisoned_set(run: Run, tmp_path: Path) -> None:
    flags = ("--rate", "0.1", "--target", "all-to-all", "--sources", "1,2", "--cover-rate", "0.05", "--export", "npz")
    code, *told = run("infect", "--quiet", "--no-train", "--out", str(tmp_path), *flags)
    assert code == 0 and "130 of 1,297 images poisoned" in "".join(told)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.csv", "train.npz", "truth.json", "truth.safetensors"]
    told = json.loads((tmp_path / "truth.json").read_text())
    assert told["target"] == [*range(1, 10), 0] and told["sources"] == [1, 2]
    kept = load_file(tmp_path / "truth.safetensors")
    labels = torch.from_numpy(np.load(tmp_path / "train.npz")["labels"]).long()
    assert int(kept["poisoned"].sum()) == 130 and int(kept["covers"].sum()) == 65
    assert torch.equal(labels[kept["poisoned"]], kept["labels"][kept["poisoned"]] + 1)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--rate 0", "rate must lie in (0, 1], got 0.0"),
        ("--target 10", "target must lie in [0, 10), got 10"),
        ("--target cat", "target must be class indices such as 0 or 1,2, got 'cat'"),
        ("--target 1,2", "target must be one class or one for each of 10 classes, got 2"),
        ("--clean-label --rate 0.5", "rate or count must ask for at most"),
        ("--sources 1,x", "sources must be class indices"),
        ("--trigger badnets:size=17", "size + margin must be at most 16, got 17 + 0"),
        ("--twin nowhere", "--twin nowhere: not the card of a victim"),
        ("--planter badnets", "planter 'badnets' is unknown"),
    ],
)
def test_infect_names_what_it_cannot_do(flags: str, said: str, run: Run, tmp_path: Path) -> None:
    code, _, error = run("infect", "--quiet", "--no-train", "--out", str(tmp_path / "v"), *flags.split())
    assert code == 2 and said in error and error.count("\n") == 1


def test_a_clean_twin_does_not_inherit_a_truth(run: Run, tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text("{}")
    (tmp_path / ".model.safetensors.x.part").touch()
    assert run("infect", "--trigger", "none", "--epochs", "1", "--out", str(tmp_path))[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "model.json", "manifest.csv", "card.json"}


def test_infect_takes_a_folder_of_any_size(run: Run, place: Path, tmp_path: Path) -> None:
    code, _, err = run(
        "infect", "--dataset", str(place / "color"), "--size", "16", "--epochs", "1", "--rate", "0.5", "--out", str(tmp_path)
    )
    assert code == 0, err
    assert json.loads((tmp_path / "model.json").read_text())["input"] == [3, 16, 16]


def test_audit_of_a_victim(run: Run, victim: Path, place: Path, tmp_path: Path) -> None:
    arguments = ["audit", str(victim), "--clean", "digits:test:160", "--suspect", str(place / "color"), *SMALL]
    code, out, err = run(*arguments, "--json", "--out", str(tmp_path))
    report = json.loads(out)
    found = report["infected"] or report["flagged"]["malicious_found"]
    assert code == int(found), err
    names = {"report.html", "report.json", "repaired.safetensors", "repaired.json", "guard.safetensors", "guard.toml"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert report["flagged"]["of"] == 30
    assert [note for note in report["skipped"] if "no better than chance" not in note] == []  # the victim had one epoch
    code, _, err = run(
        "audit", str(tmp_path / "repaired.safetensors"), "--clean", "digits:test:40", *SMALL, "--out", str(tmp_path / "again")
    )
    assert code in (0, 1), err


def test_audit_of_own_code_within_seconds(run: Run, place: Path, tmp_path: Path) -> None:
    code, out, err = run("audit", f"{place / 'own.py'}:make", "--clean", "digits:test:40", "--seconds", "0.2", "--out", str(tmp_path))
    assert code in (0, 1), err
    assert out == ""
    skipped = json.loads((tmp_path / "report.json").read_text())["skipped"]
    assert "neural_cleanse: 100 steps instead of 400" in skipped
    assert any("no better than chance" in note for note in skipped)
    assert not (tmp_path / "repaired.safetensors").exists()


def test_dotted_flags_stand_anywhere() -> None:
    given = ["audit", "--detector.bandwidth", "0.5", "model.pt", "--attack.eps=0.1", "--inspector.batch-size", "-3", "--seed", "1"]
    known, dotted = take(given)
    assert known == ["audit", "model.pt", "--seed", "1"]
    assert dotted == ["--detector.bandwidth=0.5", "--evasion.eps=0.1", "--inspector.batch_size=-3"]


def test_a_flag_goes_to_each_method_that_has_the_field() -> None:
    texts = ("neural_cleanse", "adversarial_labels")
    assert several("inspector", texts, ["--inspector.patience=50"]) == ("neural_cleanse:patience=50", "adversarial_labels")
    assert several("inspector", texts, ["--inspector.steps=9"]) == ("neural_cleanse:steps=9", "adversarial_labels:steps=9")
    with pytest.raises(BadSpec, match="no field 'patienc'"):
        several("inspector", texts, ["--inspector.patienc=50"])


def test_the_truth_reaches_the_judge_and_only_images_the_auditor_lacks(run: Run, tmp_path: Path) -> None:
    victim, out = tmp_path / "victim", tmp_path / "audit"
    assert run("infect", "--epochs", "1", "--out", str(victim), "--quiet")[0] == 0
    weights, rest = str(victim / "model.safetensors"), (*SMALL, "--quiet", "--out", str(out))
    told = ("--truth", str(victim / "truth.json"), "--judge-on", "digits:test")
    code, _, error = run("audit", weights, "--clean", "digits:test:300", *told, *rest)
    assert code in (0, 1), error
    assert json.loads((out / "report.json").read_text())["truth"]["target"] == 0
    code, _, error = run("audit", weights, "--clean", "digits:test", *told, *rest)
    assert code == 2 and "--judge-on must hold images that are not among --clean" in error
    wrong = ("--truth", str(victim / "card.json"), "--judge-on", "digits:test")
    code, _, error = run("audit", weights, "--clean", "digits:test:300", *wrong, *rest)
    assert code == 2 and "not a truth.json" in error
