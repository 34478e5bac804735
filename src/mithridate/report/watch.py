"""The page that a browser shows while a grid runs: it loads itself anew every few seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from mithridate.report.html import environment

SHOWN = 200  # failures listed


def watch_page(*, counts: Mapping[str, int], of: int, left: float, running: Sequence[str], failures: Sequence[str], finished: bool) -> str:
    """The state of a grid as one HTML document without script.

    Args:
        counts: status -> cells that came to it.
        of: number of all cells.
        left: seconds to go, by estimate.
        running: what is being done, in words.
        failures: what failed, with reasons.
        finished: whether the run is over, so that the page need not be loaded again.
    """
    return (
        environment()
        .get_template("watch.html.j2")
        .render(
            counts=dict(counts),
            of=of,
            done=sum(counts.values()),
            left=left,
            running=list(running),
            failures=list(failures)[-SHOWN:],
            finished=finished,
            style=Markup((Path(__file__).parent / "style.css").read_text("utf-8")),
        )
    )
