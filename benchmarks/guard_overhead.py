"""What kde, lid and activation_space together cost on top of the forward pass that answers anyway, through one guard.

    python benchmarks/guard_overhead.py [--models resnet9 preact_resnet18] [--rounds 9] [--threads 2]

The networks have random weights, which take the same time; the reference is 1,000 real CIFAR-10 images, which are needed under
MITHRIDATE_DATA. Processor time counts, as it does not depend on what else the machine does; wall-clock time is in the card, too.
Writes a card to results/speed/.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timing import in_turn, ratios
from torch import nn

from mithridate import datasets, methods
from mithridate.card import Card
from mithridate.crossfit import score_all
from mithridate.data import Samples
from mithridate.guard import Guard
from mithridate.nn.models import initialize
from mithridate.nn.modes import device_of

BATCH, KNOWN, CALIBRATION = 128, 1000, 128
DETECTORS = ("kde", "lid", "activation_space")


def guarded(model: nn.Module, clean: Samples) -> Guard:
    """A guard that does the work of a real one; its thresholds are set on few images, as their number takes no time."""
    scorers = {spec: methods.parse(spec, "detector").fit(model, clean) for spec in DETECTORS}
    calibration = {spec: score_all(scorer, clean[:CALIBRATION], device_of(model)) for spec, scorer in scorers.items()}
    return Guard(model, scorers, calibration, 0.05)


def compare(model: nn.Module, clean: Samples, asked: torch.Tensor, rounds: int) -> dict[str, Any]:
    """Times of a bare pass, of one with a guard of all detectors, and of one with each alone."""
    whole = guarded(model, clean)
    guards = {"guard": whole}
    for spec, scorer, known in zip(whole.specs, whole.fitted(), whole.calibration, strict=True):
        guards[spec] = Guard(model, {spec: scorer}, {spec: known.detach()}, 0.05)
    jobs: dict[str, Callable[[], object]] = {
        "bare": lambda: model(asked),
        **{name: functools.partial(each, asked) for name, each in guards.items()},
    }
    processor: dict[str, list[float]] = {name: [] for name in jobs}

    def job(name: str) -> None:
        started = time.process_time()
        with torch.no_grad():
            jobs[name]()
        processor[name].append(time.process_time() - started)

    wall = in_turn({name: functools.partial(job, name) for name in jobs}, rounds)
    processor = {name: runs[1:] for name, runs in processor.items()}  # the first one warms up
    return {
        "processor_seconds": processor,
        "wall_seconds": wall,
        "layers": list(whole.layers),
        "times_the_bare_pass": {name: ratios(processor, "bare", name) for name in guards},
        "times_the_bare_pass_fastest_rounds": {name: min(processor[name]) / min(processor["bare"]) for name in guards},
        "times_the_bare_pass_wall": {name: ratios(wall, "bare", name) for name in guards},
    }


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet9", "preact_resnet18"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "speed")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    test = datasets.load("cifar10").test
    metrics = {}
    for name in args.models:
        model = initialize(name, 0, classes=10).eval()
        metrics[name] = compare(model, test[:KNOWN], test.images[KNOWN : KNOWN + BATCH].float() / 255, args.rounds)
        for job, (median, low, high) in metrics[name]["times_the_bare_pass"].items():
            print(f"{name:16s} {job:18s} {median:.3f} of the bare pass ({low:.3f} to {high:.3f})", flush=True)
    config = {"batch": BATCH, "reference": KNOWN, "rounds": args.rounds, "threads": args.threads, "detectors": list(DETECTORS)}
    Card(kind="speed", config=config, metrics=metrics).write(args.out / "guard_overhead.json")


if __name__ == "__main__":
    main()
