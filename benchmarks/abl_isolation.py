"""Precision of ABL's isolation on CIFAR-10: what stage one of `abl` isolates, for each hold and attack.

    python benchmarks/abl_isolation.py [--attacks badnets blend clean] [--holds mean each] [--epochs 10] [--images 50000] [--seed 0]

`mean` holds the mean loss of a batch, as released code does, `each` every sample's, as the paper's text says. Local gradient ascent and
flooding have one gradient, so that one run stands for both; `--both` makes them all the same. Images come from MITHRIDATE_DATA. Writes
a card a run to results/abl/; a run that has a card is skipped, and one that was killed goes on.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mithridate import datasets, infect, loops, methods
from mithridate.analysis.early import Early, learn_early
from mithridate.analysis.isolation import isolate, lowest
from mithridate.card import Card
from mithridate.data import Samples
from mithridate.datasets import Dataset
from mithridate.infect import Plan
from mithridate.nn.models import initialize
from mithridate.threats.dose import Dose

RATIO, MODEL = 0.01, "wrn_16_1"


def training_set(dataset: Dataset, attack: str, rate: float, seed: int) -> tuple[Samples, Tensor]:
    """The samples, and which are poisoned."""
    parsed = None if attack == "clean" else methods.parse(attack, "trigger")
    plan = Plan(architecture=MODEL, attack=parsed, dose=Dose(rate=rate), trainer=methods.parse("plain"), seed=seed)
    made = infect.contaminate(plan, dataset)
    return made.training, torch.zeros(len(made.training), dtype=torch.bool) if made.truth is None else made.truth.poisoned


def judged(bad: Tensor, poisoned: Tensor) -> dict[str, float | None]:
    """Count, precision and recall of what was isolated."""
    count, hits, there = int(bad.sum()), int((bad & poisoned).sum()), int(poisoned.sum())
    return {"count": count, "precision": hits / count if count else None, "recall": hits / there if there else None}


def run(samples: Samples, poisoned: Tensor, recipe: Early, seed: int, checkpoint: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """What one run isolates, and how long it takes."""
    hooks = loops.Hooks(checkpoint=checkpoint, task="isolating")
    model, begun = initialize(MODEL, seed, classes=10), time.perf_counter()
    early = learn_early(model, samples, recipe, seed=seed, hooks=hooks)
    trained = time.perf_counter()
    each = early.final_losses(samples)
    seconds = {"training": trained - begun, "looking": time.perf_counter() - trained}
    found = isolate(each, early.impartial, samples.labels, RATIO, gate=True, adaptive=True)
    metrics: dict[str, Any] = {"lowest": judged(lowest(each, RATIO), poisoned), "isolated": judged(found.bad, poisoned)}
    metrics["lowest_by_epoch"] = [judged(lowest(epoch, RATIO), poisoned)["precision"] for epoch in early.losses]
    metrics["mean_loss"] = {"poisoned": [float(epoch[poisoned].mean()) for epoch in early.losses] if bool(poisoned.any()) else [],
                            "others": [float(epoch[~poisoned].mean()) for epoch in early.losses]}  # fmt: skip
    return metrics | {"notes": [*early.notes, found.note]}, seconds


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", nargs="+", default=["badnets", "blend", "clean"])
    parser.add_argument("--holds", nargs="+", choices=["mean", "each"], default=["mean", "each"])
    parser.add_argument("--both", action="store_true", help="flooding as well as local gradient ascent")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "abl")
    args = parser.parse_args()
    torch.set_num_threads(1)
    dataset = datasets.load("cifar10")
    dataset = replace(dataset, train=dataset.train[: args.images])
    losses: tuple[Literal["lga", "flooding"], ...] = ("lga", "flooding") if args.both else ("lga",)
    for hold, attack, loss in itertools.product(args.holds, args.attacks, losses):
        name = f"isolation-{attack.partition(':')[0]}-r{args.rate:g}-{loss}-{hold}-e{args.epochs}-seed{args.seed}"
        path = args.out / f"{name}.json"
        if path.exists():
            continue
        samples, poisoned = training_set(dataset, attack, args.rate, args.seed)
        recipe = Early(epochs=args.epochs, loss=loss, per_sample=hold == "each")
        checkpoint = args.out / f".{name}.safetensors"
        metrics, seconds = run(samples, poisoned, recipe, args.seed, checkpoint)
        config = {"model": MODEL, "attack": attack, "rate": args.rate, "loss": loss, "hold": hold, "epochs": args.epochs,
                  "images": len(samples), "ratio": RATIO, "seed": args.seed}  # fmt: skip
        Card(kind="isolation", config=config, metrics=metrics, seconds=seconds).write(path)
        checkpoint.unlink(missing_ok=True)
        print(name, metrics["lowest"], metrics["isolated"], metrics["notes"][-1], flush=True)


if __name__ == "__main__":
    main()
