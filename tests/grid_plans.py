"""A small grid on the embedded digits, for tests."""

from __future__ import annotations

from pathlib import Path

from mithridate import bench
from mithridate.bench.cell import Cell

SMALL = """
title = "small"
datasets = ["digits"]
models = ["lenet"]
trainer = "plain:epochs=12,lr=0.05"
rates = [0.1, 0.15]
threats = ["badnets", "pgd:eps=0.2,steps=5", "detector_pgd:eps=0.2,steps=5"]
defenses = ["kde", "spectral_signature", "adversarial_labels:limit=60,steps=3", "aft:epochs=2", "plain:epochs=1"]
robustness = ["fgsm:eps=0.1"]

[protocol]
fit = 150
calibration = 110
robust_images = 30

[half]
rates = [0.1]
waived = { rates = "a test" }
"""


def write_plan(folder: Path, text: str = SMALL, **changes: str) -> Path:
    """A plan file; each change replaces the line of that entry by `entry = value`, or removes it where the value is empty."""
    lines = [line for line in text.splitlines() if line.partition(" =")[0] not in changes]
    path = folder / "grid.toml"
    path.write_text("\n".join([f"{name} = {value}" for name, value in changes.items() if value] + lines))
    return path


def cells_of(folder: Path, text: str = SMALL, **changes: str) -> list[Cell]:
    """The cells of such a plan."""
    return bench.cells(bench.read(write_plan(folder, text, **changes)))
