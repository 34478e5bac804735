"""What a person wants to know of a finished victim."""

from __future__ import annotations

from pathlib import Path

from mithridate.infect.plan import Victim


def summary(victim: Victim, out: Path) -> list[str]:
    """What a person wants to know of a finished victim, line by line; a dead attack is called dead."""
    found, seconds = victim.card.metrics, victim.card.seconds.get("training")
    speed = (
        "in a resumed run"
        if not seconds
        else f"at {victim.card.config['trainer']['epochs'] * len(victim.data.training) / seconds:,.0f} images/s"
    )
    lines = [f"trained on {len(victim.data.training):,} images {speed}", f"clean accuracy {found['clean_accuracy'][0]:.2%}"]
    if "asr" in found:
        lines.append(f"attack success rate {found['asr'][0]:.2%} over test images not of the target class")
    if "leak" in found:
        lines.append(f"over the classes that are no sources {found['leak'][0]:.2%}")
    if "cross_accuracy" in found:
        lines.append(f"accuracy with the trigger of another image {found['cross_accuracy'][0]:.2%}")
    if not found.get("alive", True):
        lines.append(f"DEAD ATTACK: {', '.join(found['dead'])}; a defense would win against nothing")
    return [*lines, f"written to {out}"]
