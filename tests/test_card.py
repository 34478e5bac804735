"""Cards say how to repeat a result, also where there is no git."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from mithridate import card
from mithridate.card import Card


def test_round_trip(tmp_path: Path) -> None:
    made = Card(kind="victim", config={"seed": 3, "rate": 0.1}, metrics={"asr": [0.9, 0.8, 1.0]}, seconds={"training": 1.5})
    made.write(tmp_path / "new" / "card.json")
    assert Card.read(tmp_path / "new" / "card.json") == made
    text = (tmp_path / "new" / "card.json").read_text()
    assert text.endswith("}\n") and json.loads(text)["metrics"] == {"asr": [0.9, 0.8, 1.0]}


def test_numbers_in_a_row_share_a_line(tmp_path: Path) -> None:
    curves = {"roc": [[0.0, 0.5], [1e-7, 1.0]], "values": [1.0, float("inf")], "deep": [[[1, 2], [3, 4]], [[5, 6]]], "none": []}
    made = Card(kind="x", config={"names": ["a", "b [\n 1, 2\n]"]}, metrics={"asr": [0.9, 0.8, 1.0]}, curves=curves)
    made.write(tmp_path / "card.json")
    assert Card.read(tmp_path / "card.json") == made
    lines = [line.strip() for line in (tmp_path / "card.json").read_text().splitlines()]
    assert '"asr": [0.9, 0.8, 1.0]' in lines and '"roc": [[0.0, 0.5], [1e-07, 1.0]],' in lines and '"values": [1.0, Infinity],' in lines


def test_says_what_it_ran_on() -> None:
    made = Card(kind="x", config={}, metrics={})
    assert made.versions["torch"] == torch.__version__.split("+")[0] or made.versions["torch"] == torch.__version__
    assert made.versions["python"].startswith("3.")
    assert made.hardware


def test_commit_is_that_of_this_source_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(["git", "-C", tmp_path, *identity, *words], capture_output=True, text=True, check=True).stdout.strip()

    source = tmp_path / "package" / "card.py"
    source.parent.mkdir()
    source.touch()
    monkeypatch.setattr(card, "__file__", str(source))
    assert card.commit() == "unknown"
    git("init")
    git("commit", "--allow-empty", "-m", "theirs")
    assert card.commit() == "unknown", "installed inside another repository"
    git("add", ".")
    git("commit", "-m", "ours")
    assert card.commit() == git("rev-parse", "--short", "HEAD")
    monkeypatch.setenv("PATH", "")
    assert card.commit() == "unknown", "no git on this machine"


def test_older_pytorch_without_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "threads" in card.hardware()
