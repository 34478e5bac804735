"""docs/tour.md runs as printed, in one piece, and shows what it says."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
from torch import nn

from mithridate.methods import find
from mithridate.roles import REGISTRY

PAGE = Path(__file__).parents[1] / "docs" / "tour.md"


def test_the_page_on_attacks_runs_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    text = (PAGE.parent / "threats.md").read_text(encoding="utf-8")
    scope: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, "threats.md", "exec"), scope)
    shown = capsys.readouterr().out
    for line in re.findall(r"  # (Truth\(.*\))$", text, flags=re.MULTILINE):
        assert line in shown
    unseen = {name: int(share) for name, share in re.findall(r"^(\S+) fooled \d+%, fooled unseen (\d+)%$", shown, flags=re.MULTILINE)}
    plain, hiding = (next(share for name, share in unseen.items() if name.startswith(kind)) for kind in ("pgd", "detector_pgd"))
    assert hiding > plain


def test_the_page_on_detectors_runs_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    text = (PAGE.parent / "detectors.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)
    assert set(named) == {entry.name for entry in find("*", "detector")}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, "detectors.md", "exec"), {})
    first, second = capsys.readouterr().out.splitlines()
    flagged = re.fullmatch(r"Answer\((\d+) of (\d+) inputs flagged\)", first)
    assert flagged is not None and int(flagged[1]) > 0.5 * int(flagged[2])
    assert "clean inputs is as unusual to" in second


def test_the_tour_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(text.splitlines()) < 150 and len(blocks) >= 8
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("tour_of_mithridate")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    try:
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), module.__dict__)
    finally:
        REGISTRY.pop(module.__name__, None)
    shown, scope = capsys.readouterr().out, module.__dict__
    assert "Verdict(infected=True, target=7" in shown
    assert "Guard(Net, kde, fpr 0.02)" in shown
    assert "Outcome(This model is infected" in shown
    assert "infected" in scope["outcome"]._repr_html_()
    assert int(scope["guard"].answer(scope["stamped"]).flagged.sum()) > 100
    assert (tmp_path / "audit" / "report.html").exists()
    assert isinstance(scope["repaired"], nn.Module)
    success = re.search(r"attack success (\d+)% -> (\d+)%", shown)
    assert success is not None
    assert int(success[1]) > 90
    assert int(success[2]) < int(success[1])
