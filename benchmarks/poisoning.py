"""Poisoning all of CIFAR-10: our one vectorized call against a loop over PIL images, and every trigger, in one run.

    python benchmarks/poisoning.py [--rounds 5] [--threads 2]

Needs CIFAR-10 under MITHRIDATE_DATA. Writes a card to results/speed/. The comparison with PIL has one thread. Triggers that need no
optimization are timed at a rate of 0.1, with the covers of their habit, and on every image there is. On a busy machine the wall
clock tells of the others too; the seconds of the processor, summed over threads, stand beside it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timing import in_turn, ratios

from mithridate import datasets
from mithridate.card import Card
from mithridate.data import Samples
from mithridate.roles import Craft, Trigger
from mithridate.spec import find
from mithridate.threats.dose import Dose
from mithridate.threats.poison import poison
from mithridate.threats.triggers.badnets import BadNets
from mithridate.threats.triggers.blend import Blend


def one_by_one(samples: Samples, chosen: set[int]) -> list[tuple[Image.Image, int]]:
    """What released code does: every image out of the data set as a PIL picture, to an array, stamped if chosen, and back."""
    out = []
    for i, (array, label) in enumerate(zip(samples.images.permute(0, 2, 3, 1).numpy(), samples.labels.tolist(), strict=True)):
        pixels = np.array(Image.fromarray(array))
        if i in chosen:
            pixels[29:, 29:] = 255
        out.append((Image.fromarray(pixels), 0 if i in chosen else label))
    return out


def every_trigger(samples: Samples, rounds: int) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Seconds of each trigger that is not crafted, by rate and clock, [median, lowest, highest]; one round to warm up is not counted."""
    doses = {"0.1": Dose(), "1.0": Dose(rate=1.0, cover_rate=0.0, sources=(), clean_label=False)}
    triggers = {entry.name: entry.method() for entry in find(role="trigger")}
    found = {}
    for name, trigger in triggers.items():
        if isinstance(trigger, Craft):
            continue
        found[name] = {f"rate_{rate}": clocked(samples, trigger, dose, rounds) for rate, dose in doses.items()}
        print(name, *(f"{rate}: wall {c['wall'][0]:.2f} s, processor {c['processor'][0]:.2f} s" for rate, c in found[name].items()))
    return found


def clocked(samples: Samples, trigger: Trigger, dose: Dose, rounds: int) -> dict[str, list[float]]:
    """Seconds of one way to poison, [median, lowest, highest] by either clock."""
    walls, processors = [], []
    for _ in range(rounds + 1):
        wall, processor = time.perf_counter(), time.process_time()
        poison(samples, trigger, dose)
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    each = {"wall": walls[1:], "processor": processors[1:]}
    return {clock: [statistics.median(seconds), min(seconds), max(seconds)] for clock, seconds in each.items()}


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of the timing of every trigger")
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "speed")
    args = parser.parse_args()
    torch.set_num_threads(1)
    samples = datasets.load("cifar10").train
    chosen = set(poison(samples, BadNets(), Dose(target=0, rate=args.rate))[1].poisoned.nonzero().flatten().tolist())
    jobs = {
        "ours": lambda: poison(samples, BadNets(), Dose(target=0, rate=args.rate)),
        "ours_blend": lambda: poison(samples, Blend(), Dose(target=0, rate=args.rate)),
        "pil": lambda: one_by_one(samples, chosen),
    }
    seconds = in_turn(jobs, args.rounds)
    metrics = {"seconds": seconds, "ours_over_pil": ratios(seconds, "ours", "pil"), "blend_over_pil": ratios(seconds, "ours_blend", "pil")}
    torch.set_num_threads(args.threads)
    config = {"images": len(samples), "rate": args.rate, "threads": 1, "threads_for_triggers": args.threads, "load": os.getloadavg()[0]}
    metrics |= {"triggers": every_trigger(samples, args.rounds)}
    Card(kind="speed", config=config, metrics=metrics).write(args.out / "poisoning.json")
    print("ours_over_pil median {:.0f}, lowest {:.0f}, highest {:.0f}".format(*metrics["ours_over_pil"]))


if __name__ == "__main__":
    main()
