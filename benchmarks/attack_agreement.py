"""Compare the AutoAttack family with other implementations: robust accuracy on the same images of one model, at equal settings.

    python benchmarks/attack_agreement.py MODEL --eps 2/255 [--norm l2] [--count 200] [--parts apgd_ce,autoattack]
        [--makers ours,torchattacks] [--reference FOLDER]

MODEL is the file of a model, or `FOLDER:ID` for one of a folder with `models.json` and `architectures.py` with `load(id)`. The images
are the first of the CIFAR-10 test set, from MITHRIDATE_DATA. The others are torchattacks (3.5.1, `pip install --no-deps torchattacks`)
and the authors' own package, whose folder `--reference` names: the one that holds `autoattack/` (github.com/fra31/auto-attack) or
`pyautoattack/` (the same on PyPI). Writes a card to results/agreement/; what the card already holds is not run again. Times are CPU
seconds of one thread.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from third_party import architectures
from torch import Tensor, nn

from mithridate.card import Card
from mithridate.data import to_float
from mithridate.datasets import data_root
from mithridate.nn.modes import predict
from mithridate.nn.resolve import resolve
from mithridate.spec import make
from mithridate.threats.attack import attack

OURS = {
    "apgd_ce": ("apgd", {}),
    "apgd_t": ("apgd", {"loss": "targeted_dlr"}),
    "fab_t": ("fab", {}),
    "square": ("square", {}),
    "autoattack": ("autoattack", {}),
}
NORMS = {"linf": "Linf", "l2": "L2"}


@dataclass(frozen=True, eq=False)
class Setting:
    """One model, its images, and how far they may be changed."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    norm: str
    eps: float
    seed: int


def ours(part: str, s: Setting) -> Tensor:
    """Images made by this package."""
    name, values = OURS[part]
    method = make(name, {**values, "norm": s.norm, "eps": s.eps}, "evasion")
    return attack(method, s.model, s.images, s.labels, seed=s.seed).images


def theirs(part: str, s: Setting) -> Tensor:
    """Images made by torchattacks."""
    package = importlib.import_module("torchattacks")
    common: dict[str, Any] = {"norm": NORMS[s.norm], "eps": s.eps, "seed": s.seed}
    makers: dict[str, Callable[[], Any]] = {
        "apgd_ce": lambda: package.APGD(s.model, steps=100, **common),
        "apgd_t": lambda: package.APGDT(s.model, steps=100, n_classes=10, **common),
        "fab_t": lambda: package.FAB(s.model, steps=100, n_classes=10, multi_targeted=True, **common),
        "square": lambda: package.Square(s.model, n_queries=5000, resc_schedule=False, **common),
        "autoattack": lambda: package.AutoAttack(s.model, n_classes=10, **common),
    }
    images: Tensor = makers[part]()(s.images, s.labels)
    return images


def reference(part: str, s: Setting) -> Tensor:
    """Images made by the authors' own package."""
    name = "autoattack" if importlib.util.find_spec("autoattack") else "pyautoattack"
    whole = importlib.import_module(name).AutoAttack(s.model, norm=NORMS[s.norm], eps=s.eps, seed=s.seed, device="cpu")
    if part == "autoattack":
        found = whole.run_standard_evaluation(s.images, s.labels)
        robust: Tensor = found[0] if isinstance(found, tuple) else found
        return robust
    whole.fab.targeted = True
    single = {"apgd_ce": whole.apgd, "apgd_t": whole.apgd_targeted, "fab_t": whole.fab, "square": whole.square}[part]
    images: Tensor = single.perturb(s.images, s.labels)
    return images


MAKERS: dict[str, Callable[[str, Setting], Tensor]] = {"ours": ours, "torchattacks": theirs, "reference": reference}


def judged(maker: Callable[[str, Setting], Tensor], part: str, s: Setting) -> dict[str, float]:
    """Robust accuracy of the images that a maker makes, whether they keep the rules, and what they took."""
    started = time.process_time()
    made = maker(part, s)
    seconds = time.process_time() - started
    change = (made - s.images).flatten(1)
    right = predict(s.model, made).argmax(1) == s.labels
    size = change.abs().amax(1) if s.norm == "linf" else change.norm(dim=1)
    return {"robust_accuracy": float(right.double().mean()), "largest": float(size.max()), "cpu_seconds": round(seconds, 1)}


def load(text: str) -> nn.Module:
    """The model that the command line names, in eval mode and without gradients of its weights."""
    folder, _, name = text.partition(":")
    model: nn.Module = architectures(Path(folder)).load(name) if name else resolve(text).model
    return model.eval().requires_grad_(False)


def run(setting: Setting, parts: list[str], makers: list[str], config: dict[str, Any], path: Path) -> None:
    """Add to the card what it does not hold yet."""
    clean = (predict(setting.model, setting.images).argmax(1) == setting.labels).double().mean()
    metrics: dict[str, Any] = dict(Card.read(path).metrics) if path.exists() else {"clean": float(clean)}
    for part in parts:
        for maker in [m for m in makers if m not in metrics.setdefault(part, {})]:
            metrics[part][maker] = judged(MAKERS[maker], part, setting)
            Card(kind="agreement", config=config, metrics=metrics).write(path)
            print(part, maker, metrics[part][maker], flush=True)


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--eps", type=lambda text: float(Fraction(text)), required=True)
    parser.add_argument("--norm", choices=list(NORMS), default="linf")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(OURS))
    parser.add_argument("--makers", type=lambda text: text.split(","), default=["ours", "torchattacks"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="of the card; the model's name otherwise")
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "agreement")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.reference:
        sys.path.insert(0, str(args.reference))
        args.makers.append("reference")
    arrays = np.load(data_root() / "cifar10.npz")
    images = to_float(torch.from_numpy(arrays["x_test"][: args.count]).permute(0, 3, 1, 2).contiguous())
    labels = torch.from_numpy(arrays["y_test"][: args.count]).long()
    setting = Setting(load(args.model), images, labels, args.norm, args.eps, args.seed)
    name = args.name or args.model.partition(":")[2] or Path(args.model).stem
    config = {"model": name, "data": "cifar10", "count": args.count, "norm": args.norm, "eps": args.eps, "seed": args.seed}
    run(setting, args.parts, args.makers, config, args.out / f"{name}-{args.norm}-{args.eps:.4f}-{args.count}.json")


if __name__ == "__main__":
    main()
