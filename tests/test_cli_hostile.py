"""Files that strangers give to `mithridate audit`: each is refused with exit status 2 and one line, and none is executed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hostile
from mithridate.cli.main import main

KINDS = (hostile.pickles, hostile.bombs, hostile.foreign, hostile.liars)
NAMES = [(kind, name) for kind in KINDS for name, _ in kind(Path("canary"))]


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that exists as soon as any of the hostile ones is executed."""
    return tmp_path_factory.mktemp("hostile") / "canary"


@pytest.fixture(scope="module")
def files(canary: Path) -> dict[str, Path]:
    """Every hostile file, by kind and name."""
    found = {}
    for kind in KINDS:
        for name, data in kind(canary):
            path = canary.parent / kind.__name__ / (f"{name}.safetensors" if kind is hostile.liars else name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
            found[f"{kind.__name__}/{name}"] = path
    return found


@pytest.mark.parametrize("name", [f"{kind.__name__}/{name}" for kind, name in NAMES])
def test_it_is_refused_in_one_line(
    name: str, files: dict[str, Path], canary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["audit", str(files[name]), "--arch", "lenet", "--clean", "digits:test:20", "--out", str(canary.parent / "out")]
    monkeypatch.setattr(sys, "argv", ["mithridate", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    assert (ended.value.code, shown.out) == (2, "")
    assert shown.err.startswith("mithridate: ") and shown.err.count("\n") == 1, shown.err
    assert shown.err.rstrip("\n").isprintable()
    assert not canary.exists()
    assert not (canary.parent / "out").exists()


@pytest.mark.parametrize("name", ["pickles/evil.pt", "bombs/deflated.pt", "liars/length_max"])
def test_so_it_is_in_a_process_of_its_own(name: str, files: dict[str, Path], canary: Path) -> None:
    code = "from mithridate.cli.main import main; main()"
    command = [sys.executable, "-c", code, "audit", str(files[name]), "--arch", "lenet", "--clean", "digits:test:20"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout, shown.stderr.count("\n")) == (2, "", 1), shown.stderr
    assert not canary.exists()
