"""The verdict in one sentence, for a reader who knows no jargon."""

from __future__ import annotations

from mithridate.report.schema import Flagged
from mithridate.roles import Verdict


def sentence(verdict: Verdict, classes: list[str], flagged: Flagged | None) -> str:
    """What was found, in one sentence."""
    if verdict.infected:
        towards = (
            f"a hidden trigger makes it answer “{classes[verdict.target]}”"
            if verdict.target is not None
            else "it reacts to a hidden trigger"
        )
        said = f"This model is infected: {towards}."
    else:
        said = "No backdoor was found in this model."
    if flagged is None:
        return said
    usual = "" if flagged.malicious_found else ", no more than among clean images"
    return f"{said[:-1]}, and {flagged.count:,} of {flagged.of:,} suspect inputs look malicious{usual}."
