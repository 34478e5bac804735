"""PGD-10 of ours, torchattacks, foolbox, ART and adv-lib: seconds, and the accuracy that is left, in one run.

    python benchmarks/attack_speed.py MODEL [--eps 8 1 0.5] [--images 128] [--rounds 3]

MODEL is a file that `mithridate` opens, trained on CIFAR-10, which is needed under MITHRIDATE_DATA. The radii are in units of 1/255:
at 8/255 a plain model is always fooled, and what is fooled early leaves our batch early, so smaller radii are run as well.
Needs foolbox, torchattacks, adv-lib and adversarial-robustness-toolbox. One thread; its processor time is what counts, as it does not
depend on what else the machine does. Writes a card to results/speed/.
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import torch
from rivals import Attack, rivals
from timing import in_turn, ratios
from torch import Tensor, nn

from mithridate import datasets
from mithridate.card import Card
from mithridate.nn.modes import predict
from mithridate.nn.resolve import resolve
from mithridate.threats.evasion.pgd import PGD

BATCH, STEPS = 128, 10


def ours(model: nn.Module, eps: float, **options: bool) -> Attack:
    """Our attack with the settings of the others."""
    attack = PGD(eps=eps, step=eps / 4, steps=STEPS, random_start=False, batch_size=BATCH, **options)  # type: ignore[arg-type]
    return lambda x, y: attack.perturb(model, x, y)


def whole(attack: Attack, images: Tensor, labels: Tensor) -> Tensor:
    """All images, a batch at a time."""
    return torch.cat([attack(x, y) for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True)])


def compare(model: nn.Module, images: Tensor, labels: Tensor, eps: float, rounds: int) -> dict[str, Any]:
    """Times and accuracies under attack of all implementations at one radius."""
    attacks = {"ours": ours(model, eps), "ours_fp32": ours(model, eps, fast=False), **rivals(model, eps, eps / 4, STEPS, BATCH)}
    made: dict[str, Tensor] = {}
    processor: dict[str, list[float]] = {name: [] for name in attacks}

    def job(name: str) -> None:
        started = time.process_time()
        made[name] = whole(attacks[name], images, labels)
        processor[name].append(time.process_time() - started)

    wall = in_turn({name: functools.partial(job, name) for name in attacks}, rounds)
    processor = {name: runs[1:] for name, runs in processor.items()}  # the first one warms up
    accuracy = {name: float((predict(model, x).argmax(1) == labels).float().mean()) for name, x in made.items()}
    others = [name for name in attacks if not name.startswith("ours")]
    fastest = min(others, key=lambda name: sorted(processor[name])[rounds // 2])
    return {
        "processor_seconds": processor,
        "wall_seconds": wall,
        "accuracy_under_attack": accuracy,
        "largest_change": {name: 255 * float((x - images).abs().max()) for name, x in made.items()},
        "fastest_other": fastest,
        "ours_over_fastest_other": ratios(processor, "ours", fastest),
        "ours_over_fastest_other_wall": ratios(wall, "ours", fastest),
    }


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--eps", type=float, nargs="+", default=[8, 1, 0.5])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "speed")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = resolve(args.model).model.eval()
    test = datasets.load("cifar10").test[: args.images]
    metrics = {}
    for eps in args.eps:
        found = compare(model, test.images.float() / 255, test.labels, eps / 255, args.rounds)
        metrics[f"eps_{eps:g}_of_255"] = found
        print(
            f"{eps:g}/255: ours over {found['fastest_other']}",
            "median {:.2f}, lowest {:.2f}, highest {:.2f}".format(*found["ours_over_fastest_other"]),
        )
        for name, seconds in found["processor_seconds"].items():
            print(
                f"  {name:20s} {sorted(seconds)[len(seconds) // 2]:6.2f} s  accuracy {100 * found['accuracy_under_attack'][name]:.2f}",
                flush=True,
            )
    config = {
        "model": "wrn_16_1",
        "images": args.images,
        "rounds": args.rounds,
        "threads": 1,
        "batch": BATCH,
        "steps": STEPS,
        "step": "eps / 4",
    }
    Card(kind="speed", config=config, metrics=metrics).write(args.out / "attack_speed.json")


if __name__ == "__main__":
    main()
