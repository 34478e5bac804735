"""The demo and its clean twin over several seeds: is the verdict right, on both sides?

    python benchmarks/demo_seeds.py [--seeds 10]

Writes one card to results/demo/.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from mithridate.audit import Settings, audit, demo
from mithridate.card import Card
from mithridate.metrics import Rate


def one(seed: int, infected: bool) -> dict[str, object]:
    """Make and audit one victim or twin; a flat row of what came out."""
    started = time.perf_counter()
    made = demo.make(infected=infected, seed=seed)
    report = audit(made.subject, Settings(seed=seed), key=made.key, fresh=made.fresh).report
    row: dict[str, object] = {
        "seed": seed,
        "infected": infected,
        "said": report.infected,
        "target": report.target,
        "p_value": report.p_value,
        "clean_accuracy": report.clean_accuracy,
        "training_flagged": report.training.count if report.training else None,
        "seconds": time.perf_counter() - started,
    }
    if report.truth is not None:
        row |= report.truth.model_dump(exclude={"trigger", "target"}) | {"true_target": report.truth.target}
    right = report.infected == infected and report.target == (made.key.target if made.key else None)
    return row | {"right": right}


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "demo")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for seed in range(args.seeds):
        for infected in (True, False):
            rows.append(one(seed, infected))
            print({k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    metrics: dict[str, object] = {"rows": rows}
    for side, infected in (("infected_right", True), ("clean_right", False)):
        of = [row["right"] for row in rows if row["infected"] == infected]
        rate = Rate(sum(map(bool, of)), len(of))
        metrics[side] = [rate.value, *rate.interval]
        print(side, rate)
    Card(kind="demo", config={"seeds": args.seeds}, metrics=metrics).write(args.out / "seeds.json")


if __name__ == "__main__":
    main()
