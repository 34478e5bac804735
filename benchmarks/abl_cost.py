"""What ABL costs beside plain training, and its isolation pass beside the published loop over single images.

    python benchmarks/abl_cost.py [--images 2560] [--epochs 10] [--rounds 3] [--threads 1]

Needs CIFAR-10 under MITHRIDATE_DATA and torchvision (the `vision` extra) for the published loop, which is written anew here from its
description: batches of one, fp32, the loss taken out of each by itself, and a second loop of the same kind that sorts images out.
ABL runs with its gate off, so that there always is something to unlearn. The processor's time is what counts: all of it is work of one
thread, and a busy machine stretches the wall clock. Writes a card to results/speed/.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from timing import in_turn, ratios
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from training_loop import PerImage

from mithridate import datasets
from mithridate.analysis.early import look
from mithridate.card import Card
from mithridate.data import Samples
from mithridate.defenses.trainers.abl import ABL
from mithridate.defenses.trainers.plain import Plain
from mithridate.nn.models import initialize
from mithridate.nn.modes import has_fast_bf16
from mithridate.nn.timm_models import import_torchvision


def fresh() -> nn.Module:
    """The model that all train."""
    return initialize("wrn_16_1", 0, classes=10)


@torch.no_grad()
def published(model: nn.Module, data: PerImage) -> list[int]:
    """Images with the lowest loss, one at a time, and one at a time again to sort them out."""
    model.eval()
    losses = [F.cross_entropy(model(image), label).item() for image, label in DataLoader(data, batch_size=1)]
    lowest = np.argsort(np.array(losses))[: max(1, len(losses) // 100)]
    return [i for i, _ in enumerate(DataLoader(data, batch_size=1)) if i in lowest]


def single(samples: Samples) -> PerImage:
    """Images as the published loop reads them: no augmentation."""
    import_torchvision()
    from torchvision import transforms  # works on a CPU build of PyTorch only after the line above

    data = PerImage(samples)
    data.transform = transforms.Compose([transforms.ToTensor()])
    return data


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2_560)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "speed")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    samples = datasets.load("cifar10").train[: args.images]
    model, pictures = fresh(), single(samples)
    recipe = {"epochs": args.epochs, "schedule": "cosine", "flip": True}
    split = {"isolation_epochs": max(1, args.epochs // 5), "gate": False, "adaptive": False}
    whole = in_turn(
        {
            "plain": lambda: Plain(**recipe).train(model, samples),
            "joint": lambda: ABL(**recipe, **split, unlearn="joint").train(model, samples),
            "sequential": lambda: ABL(**recipe, **split, unlearn="sequential").train(model, samples),
        },
        args.rounds,
        time.process_time,
    )
    passes = {"ours": lambda: look(model, samples), "published": lambda: published(model, pictures)}
    looking = in_turn(passes, args.rounds, time.process_time)
    times, faster = {form: ratios(whole, "plain", form) for form in ("joint", "sequential")}, ratios(looking, "ours", "published")
    metrics = {
        "seconds": whole | {f"looking, {name}": each for name, each in looking.items()},
        "times_plain_training": times,
        "pass_times_faster_than_published": faster,
    }
    precision = "bf16" if has_fast_bf16(torch.device("cpu")) else "fp32"  # of our pass; the published loop is in fp32
    asked = {name: getattr(args, name) for name in ("images", "epochs", "rounds", "threads")}
    Card(kind="speed", config=asked | {"model": "wrn_16_1", "precision": precision}, metrics=metrics).write(args.out / "abl_cost.json")
    for name, ratio in (*times.items(), ("pass", faster)):
        print(name, "median {:.2f}, lowest {:.2f}, highest {:.2f}".format(*ratio))


if __name__ == "__main__":
    main()
