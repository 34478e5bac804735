"""Poisoning all of CIFAR-10: our one vectorized call against a loop over PIL images, in one run.

    python benchmarks/poisoning.py [--rounds 5]

Needs CIFAR-10 under MITHRIDATE_DATA. Writes a card to results/speed/.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timing import in_turn, ratios

from mithridate import datasets
from mithridate.card import Card
from mithridate.data import Samples
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


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
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
    Card(kind="speed", config={"images": len(samples), "rate": args.rate, "threads": 1}, metrics=metrics).write(args.out / "poisoning.json")
    print("ours_over_pil median {:.0f}, lowest {:.0f}, highest {:.0f}".format(*metrics["ours_over_pil"]))


if __name__ == "__main__":
    main()
