"""Mean L2 length of what C&W and DeepFool find: ours, foolbox and torchattacks, same model, images and settings.

    python benchmarks/minimal_norm.py MODEL [--images 32]

MODEL is a file that `mithridate` opens, trained on CIFAR-10, which is needed under MITHRIDATE_DATA. Only images the model gets right
are attacked. Needs foolbox and torchattacks. Torchattacks' C&W searches no constant, so it runs with one. Writes a card to
results/agreement/.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mithridate import datasets
from mithridate.card import Card
from mithridate.nn.modes import predict
from mithridate.nn.resolve import resolve
from mithridate.nn.timm_models import import_torchvision
from mithridate.threats.evasion.cw import CW
from mithridate.threats.evasion.deepfool import DeepFool

SEARCHES, STEPS, LR, FIRST = 6, 100, 0.01, 0.01


def attacks(model: nn.Module) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Attack by name."""
    import_torchvision()
    import foolbox
    import torchattacks

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))  # pyright: ignore[reportPrivateImportUsage]
    wagner = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=SEARCHES, steps=STEPS, stepsize=LR, initial_const=FIRST)  # pyright: ignore[reportPrivateImportUsage]
    fool = foolbox.attacks.L2DeepFoolAttack(steps=50, candidates=10, overshoot=0.02)  # pyright: ignore[reportPrivateImportUsage]
    return {
        "deepfool_ours": lambda x, y: DeepFool().perturb(model, x, y),
        "deepfool_foolbox": lambda x, y: fool(wrapped, x, y, epsilons=None)[1],
        "deepfool_torchattacks": torchattacks.DeepFool(model, steps=50, overshoot=0.02),
        "cw_ours": lambda x, y: CW(searches=SEARCHES, steps=STEPS, lr=LR, c=FIRST).perturb(model, x, y),
        "cw_foolbox": lambda x, y: wagner(wrapped, x, y, epsilons=None)[1],
        "cw_torchattacks": torchattacks.CW(model, c=1, kappa=0, steps=STEPS, lr=LR),
    }


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "agreement")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = resolve(args.model).model.eval()
    test = datasets.load("cifar10").test[: 2 * args.images]
    test = test[predict(model, test).argmax(1) == test.labels][: args.images]
    images, metrics = test.images.float() / 255, dict[str, dict[str, Any]]()
    for name, attack in attacks(model).items():
        started = time.process_time()
        made = attack(images, test.labels).detach()
        seconds = time.process_time() - started
        fooled = predict(model, made).argmax(1) != test.labels
        length = (made - images).flatten(1).norm(dim=1)[fooled]
        metrics[name] = {"fooled": float(fooled.float().mean()), "mean_l2": float(length.mean()), "processor_seconds": seconds}
        metrics[name]["median_l2"] = float(length.median())
        print(name, {key: round(value, 4) for key, value in metrics[name].items()}, flush=True)
    config = {"images": len(images), "searches": SEARCHES, "steps": STEPS, "lr": LR, "first_constant": FIRST, "threads": 1}
    Card(kind="agreement", config=config, metrics=metrics).write(args.out / "minimal_norm.json")


if __name__ == "__main__":
    main()
