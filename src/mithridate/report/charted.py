"""A page with charts: its data, scripts, styles and Apache ECharts in one file, and a policy under which nothing else runs."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mithridate.report.grid_columns import compress
from mithridate.report.html import environment

HERE = Path(__file__).parent
ECHARTS = HERE / "vendor" / "echarts.common.min.js"


def charted(template: str, scripts: Sequence[str], styles: Sequence[str], data: str, **told: Any) -> str:
    """The page of a template, as HTML.

    Args:
        template: its file, which places `data`, `charts`, `script` and `style`, and takes `hashes` into its policy.
        scripts: files that become one module, in this order.
        styles: files, likewise.
        data: what the scripts work on, harmless inside of a script element.
        told: what else the template needs.
    """
    charts = ECHARTS.read_bytes()
    script, style = ("\n".join((HERE / name).read_text("utf-8") for name in names) for names in (scripts, styles))
    hashes = {"script": [_permitted(script.encode()), _permitted(charts)], "style": _permitted(style.encode())}
    parts = {"data": data, "charts": compress(charts), "script": script, "style": style}
    return environment().get_template(template).render(told | {name: Markup(text) for name, text in parts.items()}, hashes=hashes)


def _permitted(part: bytes) -> str:
    """What a page's policy says of a script or style, so that the browser runs this text and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(part).digest()).decode()}'"
