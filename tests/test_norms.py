"""The norms script finds what it is meant to find: each norm is shown a package that breaks it."""

from __future__ import annotations

from pathlib import Path

import pytest

import norms

CLEAN = '"""Fine."""\n\n\ndef double(value: int) -> int:\n    """Twice the value."""\n    return 2 * value\n'


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "src" / "mithridate"
    (folder / "defenses" / "detectors").mkdir(parents=True)
    (folder / "cli").mkdir()
    (folder / "fine.py").write_text(CLEAN)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_fine.py").write_text("assert True\n" * 6)
    return folder


def value(package: Path, name: str) -> float:
    return norms.measure(package, package.parents[1] / "tests")[name].value


def test_a_clean_package_has_nothing_to_complain_about(package: Path) -> None:
    measured = norms.measure(package, package.parents[1] / "tests")
    assert norms.judge(measured, {}) == []
    assert {norm.name for norm in norms.NORMS if not norm.noisy} == set(measured)


@pytest.mark.parametrize(
    ("norm", "code", "expected"),
    [
        ("bare except", '"""Bad."""\ntry:\n    pass\nexcept:\n    pass\n', 1),
        ("print below cli", '"""Bad."""\nprint(1)\n', 1),
        ("star imports", '"""Bad."""\nfrom os import *\n', 1),
        (
            "most parameters below cli",
            '"""Bad."""\ndef _f(a: int, b: int, c: int, d: int, *, e: int, f: int, g: int) -> None: ...\n',
            7,
        ),
        ("function body, most lines", '"""Bad."""\n\n\ndef _f() -> None:\n' + "    pass\n" * 51, 51),
        ("function body, median lines", '"""Bad."""\n\n\ndef _f() -> None:\n' + "    pass\n" * 31, 16),
        ("longest core file, lines", "# line\n" * 301, 301),
        ("typed parameters and results, %", '"""Bad."""\n\n\ndef _f(a, *b: int) -> int: ...\n', 80),
        ("public docstrings, %", '"""Bad."""\n\n\nclass Bad:\n    def method(self) -> None: ...\n', 60),
    ],
)
def test_a_planted_violation_is_found(package: Path, norm: str, code: str, expected: float) -> None:
    (package / "bad.py").write_text(code)
    assert value(package, norm) == pytest.approx(expected)


def test_printing_is_allowed_in_the_cli(package: Path) -> None:
    (package / "cli" / "main.py").write_text('"""Fine."""\nprint(1)\n')
    assert value(package, "print below cli") == 0


def test_method_files_are_told_from_core_files(package: Path) -> None:
    (package / "defenses" / "detectors" / "long.py").write_text("# line\n" * 160)
    (package / "defenses" / "detectors" / "__init__.py").write_text("# line\n" * 170)
    assert value(package, "longest method file, lines") == 160
    assert value(package, "longest core file, lines") == 170


def test_import_cycles_are_found_also_through_a_package(package: Path) -> None:
    (package / "one.py").write_text("from mithridate.cli import two\n")
    (package / "cli" / "two.py").write_text("import mithridate.one\n")
    assert value(package, "import cycles") == 1
    (package / "cli" / "two.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import mithridate.one\n")
    assert value(package, "import cycles") == 0


def test_copied_lines_count_on_both_sides(package: Path) -> None:
    body = "".join(f"    x{i} = {i}\n" for i in range(6))
    (package / "one.py").write_text(f"def _one() -> None:\n{body}")
    assert value(package, "duplicated lines, %") == 0
    (package / "two.py").write_text(f"def _two() -> None:\n{body}")
    assert value(package, "duplicated lines, %") == pytest.approx(100 * 12 / 16)  # two more lines in fine.py


def test_too_few_tests_are_noticed(package: Path) -> None:
    (package.parents[1] / "tests" / "test_fine.py").write_text("assert True\n")
    assert value(package, "test lines per source line") == pytest.approx(1 / 6, abs=0.01)


@pytest.mark.parametrize(
    ("measured", "before", "complaint"),
    [(3, 3, ""), (4, 3, "worse than 3"), (4, None, ""), (2, 1, ""), (6, 6, "beyond the limit")],
)
def test_a_number_must_be_no_worse_than_the_ratchet_once_past_its_aim(measured: float, before: float | None, complaint: str) -> None:
    assert norms.Norm("n", aim=2, limit=5).complaint(measured, before) == complaint


def test_a_noisy_number_only_fails_at_its_limit() -> None:
    noisy = norms.Norm("n", aim=2, limit=5, noisy=True)
    assert (noisy.complaint(4, 3), noisy.complaint(6, 3)) == ("", "beyond the limit")


def test_judging_names_the_place(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (package / "bad.py").write_text('"""Bad."""\nprint(1)\n')
    complaints = norms.judge(norms.measure(package, package.parents[1] / "tests"), {})
    assert complaints == ["print below cli: 1 is beyond the limit (mithridate/bad.py:2)"]
    assert "mithridate/bad.py:2" in capsys.readouterr().out
