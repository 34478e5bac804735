"""Small sets under ABL's first stage: how often it isolates anything of clean ones, and how often it finds a poison of a tenth.

    python benchmarks/abl_small.py [--sources mnist:500 photos/:800] [--batches 128 32] [--seeds 100 105] [--out results/abl]

Each training has the four early epochs of `abl@quick`, on other images and from other weights a seed. Named sets come from
MITHRIDATE_DATA; a folder is resized to 32x32. Writes a card a source and batch size; where there is one, it is skipped.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mithridate import loops, methods
from mithridate.analysis.early import Early, learn_early
from mithridate.analysis.isolation import isolate
from mithridate.card import Card
from mithridate.cli.training import configured, form
from mithridate.data import Samples
from mithridate.datasets import DATASETS
from mithridate.datasets.sources import parse, read
from mithridate.nn.models import initialize
from mithridate.threats.dose import Dose
from mithridate.threats.poison import poison

RATE, MODEL = 0.1, "wrn_16_1"
SOURCES = ["digits:300", "digits:1000", "mnist:500", "mnist:1500", "fashion_mnist:500", "fashion_mnist:1500"]


def samples(source: str, seed: int) -> Samples:
    """Images of a source, drawn by a seed."""
    return read(source, form(None if parse(source)[0] in DATASETS else 32, seed), root=None, part="train")


def counted(source: str, batch_size: int, seeds: range) -> tuple[int, dict[str, list[int]]]:
    """The steps of a training; of how many clean ones anything is isolated, and in how many with poison mostly that."""
    quick = replace(configured("trainer", "abl@quick", source, None, []), batch_size=batch_size)._early()
    counts, steps = {"alarms": [0, 0], "found": [0, 0]}, 0
    for seed in seeds:
        clean = samples(source, seed)
        dirty, truth = poison(clean, methods.parse("badnets", "trigger"), Dose(rate=RATE), seed=seed)
        for name, given in (("alarms", clean), ("found", dirty)):
            steps, bad = isolated(given, quick, seed)
            counts[name][0] += bool(bad.any()) if name == "alarms" else bool(bad.any()) and float(truth.poisoned[bad].float().mean()) > 0.5
            counts[name][1] += 1
    return steps, counts


def isolated(given: Samples, recipe: Early, seed: int) -> tuple[int, torch.Tensor]:
    """The steps of one training, and what it isolates (n,) bool."""
    _, channels, size, _ = given.images.shape
    model = initialize(MODEL, seed, classes=len(given.classes), channels=channels, size=size)
    early = learn_early(model, given, recipe, seed=seed, hooks=loops.Hooks())
    return early.steps, isolate(early.final_losses(given), early.impartial, given.labels, 0.01, gate=True, adaptive=True).bad


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", nargs="+", default=SOURCES)
    parser.add_argument("--batches", nargs="+", type=int, default=[128, 32])
    parser.add_argument("--seeds", nargs=2, type=int, default=[100, 105], metavar=("FIRST", "END"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "abl")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for source, batch_size in itertools.product(args.sources, args.batches):
        place, _, count = parse(source)
        path = args.out / f"small-{Path(place).name}-{count}-b{batch_size}.json"
        if path.exists():
            continue
        steps, counts = counted(source, batch_size, range(*args.seeds))
        config: dict[str, Any] = {"images": f"{Path(place).name}:{count}", "model": MODEL, "batch_size": batch_size, "rate": RATE}
        Card(kind="small", config=config | {"seeds": args.seeds}, metrics={"steps": steps, **counts}, seconds={}).write(path)
        print(path.stem, steps, counts, flush=True)


if __name__ == "__main__":
    main()
