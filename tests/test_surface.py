"""The public surface is exactly what it says, light to import, complete, and built in layers."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

import mithridate
from mithridate.roles import REGISTRY

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "mithridate"
SHARED = ("stamping", "searching")  # what methods have in common
METHOD_FILES = [
    path
    for part in ("threats", "defenses")
    for path in sorted((SOURCE / part).glob("*/*.py"))
    if path.stem != "__init__" and path.parent.name not in SHARED
]


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True).stdout


def test_every_public_name_resolves_and_nothing_else_is_offered() -> None:
    missing = [name for name in mithridate.__all__ if not hasattr(mithridate, name)]
    assert missing == []
    assert dir(mithridate) == sorted(mithridate.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        mithridate.no_such_name  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    assert sorted(alias.name for node in guarded.body for alias in node.names) == sorted(mithridate.__all__)


def test_importing_the_package_imports_nothing_else() -> None:
    heavy = ["torch", "numpy", "sklearn", "pydantic", "lightning_fabric", "typer", "timm", "torchvision"]
    assert run(f"import mithridate, sys; print(*[m for m in {heavy} if m in sys.modules])").split() == []


def test_looking_methods_up_stays_light() -> None:
    heavy = ["sklearn", "pydantic", "lightning_fabric", "typer", "timm", "torchvision"]
    found = run(f"import mithridate, sys; mithridate.find(); print(*[m for m in {heavy} if m in sys.modules])")
    assert found.split() == []


@pytest.mark.parametrize("path", METHOD_FILES, ids=lambda path: path.stem)
def test_every_method_file_is_registered(path: Path) -> None:
    importlib.import_module("mithridate.methods")
    module = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
    assert path.stem in REGISTRY, f"{path.name} needs its import line in {path.parent.name}/__init__.py"
    assert REGISTRY[path.stem].method.__module__ == module


def test_every_import_contract_holds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True) == EXIT_STATUS_SUCCESS, capsys.readouterr().out
