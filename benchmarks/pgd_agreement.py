"""Accuracy under PGD-20 of ours, torchattacks, foolbox, ART and adv-lib: same model, images, radius and step, no random start.

    python benchmarks/pgd_agreement.py MODEL [--eps 1 0.5] [--images 600]

MODEL is a file that `mithridate` opens, trained on CIFAR-10, which is needed under MITHRIDATE_DATA. The radii are in units of 1/255 and
small, so that a plain model is fooled on some of the images only. Needs the packages of `attack_speed.py`. Writes a card to
results/agreement/.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from attack_speed import BATCH, whole
from rivals import rivals

from mithridate import datasets
from mithridate.card import Card
from mithridate.nn.modes import predict
from mithridate.nn.resolve import resolve
from mithridate.threats.evasion.pgd import PGD

STEPS = 20


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--eps", type=float, nargs="+", default=[1, 0.5])
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "agreement")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = resolve(args.model).model.eval()
    test = datasets.load("cifar10").test[: args.images]
    images, metrics = test.images.float() / 255, {}
    for radius in args.eps:
        eps = radius / 255
        same = {"eps": eps, "step": eps / 4, "steps": STEPS, "random_start": False, "batch_size": BATCH}
        mine = {"ours": PGD(**same), "ours_fp32": PGD(**same, fast=False), "ours_fp32_all_steps": PGD(**same, fast=False, early_exit=False)}
        made = {name: attack.perturb(model, images, test.labels) for name, attack in mine.items()}
        made |= {name: whole(attack, images, test.labels) for name, attack in rivals(model, eps, eps / 4, STEPS, BATCH).items()}
        accuracy = {name: float((predict(model, x).argmax(1) == test.labels).float().mean()) for name, x in made.items()}
        metrics[f"eps_{radius:g}_of_255"] = accuracy
        print(f"{radius:g}/255", {name: f"{100 * value:.2f}" for name, value in accuracy.items()}, flush=True)
    config = {"model": "wrn_16_1", "images": args.images, "steps": STEPS, "step": "eps / 4", "batch": BATCH, "threads": 1}
    Card(kind="agreement", config=config, metrics=metrics).write(args.out / "pgd.json")


if __name__ == "__main__":
    main()
