"""What README.md shows is true: its links lead somewhere, its commands exist, and its Python runs as printed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_local_links_lead_to_files() -> None:
    links = re.findall(r"\]\(((?!https?:)[^)#]+)", README)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_two_lines_make_their_own_environment() -> None:
    setups = [block for block in blocks("bash") if "venv" in block]
    assert [block.count("\n") for block in setups] == [1, 1]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for block in setups:
        constraint = re.search(r"-c (\S+)", block)
        assert constraint is not None
        assert (ROOT / constraint[1]).is_file()
    for name in re.findall(r"\.\[([\w,]+)\]", README):
        assert set(name.split(",")) <= set(extras)


def test_its_python_runs_and_finds_the_backdoor(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line]) < 20
    scope: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), scope)
    shown = capsys.readouterr().out
    assert "infected=True, target=7" in shown
    refused = re.search(r"(\d+)% of the triggered", shown)
    assert refused is not None
    assert int(refused[1]) > 50
