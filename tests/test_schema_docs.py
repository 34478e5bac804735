"""The page about `report.json` says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import schema_docs
from mithridate.report.schema import Part


def test_the_pages_are_up_to_date() -> None:
    for path, text in schema_docs.pages().items():
        assert path.read_text(encoding="utf-8") == text, "run python tools/schema_docs.py"


def test_every_field_of_the_report_has_its_row_and_its_meaning() -> None:
    page = (schema_docs.DOCS / "report-schema.md").read_text(encoding="utf-8")
    fields = [name for part in Part.__subclasses__() for name in part.model_fields]
    assert len(fields) > 50
    assert [name for name in fields if not re.search(rf"^\| `{name}` \| [^|]+ \| [^| ][^|]+ \|$", page, flags=re.MULTILINE)] == []
    assert not re.search(r"\|  \|$", page, flags=re.MULTILINE)


def test_a_stale_page_is_noticed_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_docs, "DOCS", tmp_path)
    monkeypatch.setattr("sys.argv", ["schema_docs.py", "--check"])
    assert schema_docs.main() == 1
    monkeypatch.setattr("sys.argv", ["schema_docs.py"])
    assert schema_docs.main() == 0
    monkeypatch.setattr("sys.argv", ["schema_docs.py", "--check"])
    assert schema_docs.main() == 0
