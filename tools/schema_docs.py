"""Write `docs/report-schema.md` and `docs/report.schema.json` from the report's pydantic models; `--check` only compares."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mithridate.report.schema import SCHEMA_VERSION, AuditReport

DOCS = Path(__file__).parents[1] / "docs"
INTRO = f"""# The report in numbers: `report.json`, schema {SCHEMA_VERSION}

Every audit writes `report.json`. Shares and rates lie in [0, 1], budgets are in pixel units of [0, 1], times in seconds,
classes are zero-based indices. A field that says nothing is `null`; fields are added in minor versions and change meaning
only in major ones. The machine-readable form is [report.schema.json](report.schema.json).

This page is written by `python tools/schema_docs.py` from `src/mithridate/report/schema.py`.
"""


def pages() -> dict[Path, str]:
    """What each file should hold."""
    schema = AuditReport.model_json_schema(mode="serialization")
    parts = [schema, *(schema["$defs"][name] for name in schema["$defs"])]
    page = "\n".join([INTRO, *("\n".join(_section(part)) for part in parts)])
    return {DOCS / "report-schema.md": page, DOCS / "report.schema.json": json.dumps(schema, indent=2) + "\n"}


def _section(part: dict[str, Any]) -> Iterator[str]:
    yield f"## {part['title']}\n"
    yield f"{part['description']}\n"
    yield "| field | type | meaning |"
    yield "| --- | --- | --- |"
    for name, field in part["properties"].items():
        yield f"| `{name}` | {_type(field)} | {field.get('description', '')} |"
    yield ""


def _type(field: dict[str, Any]) -> str:
    """A field's type in words, with links to the parts of this page."""
    if "$ref" in field:
        part = field["$ref"].rpartition("/")[2]
        return f"[{part}](#{part.lower()})"
    if "anyOf" in field:
        return " or ".join(_type(option) for option in field["anyOf"])
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "prefixItems" in field:
        return f"[{', '.join(_type(item) for item in field['prefixItems'])}]"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    return str(field.get("type", "anything"))


def main() -> int:
    """Run as a script: 1 when `--check` finds a page that is out of date."""
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        print(*(f"{path.name} is out of date: run python tools/schema_docs.py" for path in stale), sep="\n")
        return 1 if stale else 0
    for path in stale:
        path.write_text(pages()[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
