"""What a guard catches of attacks that do not know it, and of attacks that do.

    python benchmarks/detector_attack.py MODEL [--images 200] [--detector kde]

MODEL is anything `resolve` takes that was trained on CIFAR-10, which must lie under MITHRIDATE_DATA. The guard is fitted and calibrated on
clean test images; the attacks start from others, which the model classifies rightly. Writes a card to results/adaptive/.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import mithridate.defenses
import mithridate.threats  # noqa: F401  both fill the registry
from mithridate import datasets
from mithridate.card import Card
from mithridate.data import Samples, to_float
from mithridate.guard import Guard
from mithridate.metrics import Rate
from mithridate.nn.guarded import Guarded
from mithridate.nn.modes import predict
from mithridate.nn.resolve import resolve
from mithridate.nn.scorers import TraceScorer
from mithridate.nn.taps import Trace
from mithridate.roles import Evasion
from mithridate.spec import parse, to_spec
from mithridate.threats.attack import attack


class Opaque(TraceScorer):
    """A scorer that keeps its gradients to itself."""

    differentiable = False

    def __init__(self, scorer: TraceScorer) -> None:
        super().__init__(scorer.model, scorer.layers, {})
        self.scorer = scorer

    def score(self, seen: Trace) -> Tensor:
        """The scores of the scorer inside."""
        return self.scorer.score(seen)


def share(hit: Tensor) -> list[float]:
    """A share with its 95 % interval; of nothing, nothing."""
    if not len(hit):
        return []
    rate = Rate(int(hit.sum()), len(hit))
    return [rate.value, *rate.interval]


def row(evasion: Evasion, model: Guarded, samples: Samples, seed: int) -> tuple[dict[str, Any], float]:
    """How many are fooled, how many of those are detected, how many are fooled unseen; and the seconds it took."""
    started = time.perf_counter()
    made = attack(evasion, model, samples.images, samples.labels, seed=seed)
    seconds = time.perf_counter() - started
    with torch.no_grad():
        detected = model.excess(model.look(made.images)) > 0
    said = {"fooled": share(made.fooled), "detected_of_fooled": share(detected[made.fooled]), "unseen": share(made.fooled & ~detected)}
    return {**said, "linf": float(made.linf.max()), "forwards": made.forwards, "gradients": made.gradients}, seconds


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--clean", type=int, default=2000)
    parser.add_argument("--detector", default="kde")
    parser.add_argument("--fpr", type=float, default=0.05)
    parser.add_argument("--eps", type=float, nargs="+", default=[8, 2, 1], help="L-inf radii, in 255ths")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "adaptive")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = resolve(args.model).model.eval()
    clean, fresh, others = datasets.load("cifar10").test.split(args.clean, 1000, seed=args.seed)
    others = others[: 4 * args.images]
    right = others[predict(model, others).argmax(1) == others.labels][: args.images]
    right = Samples(to_float(right.images), right.labels, right.classes)
    detector = parse(args.detector, "detector")
    guard = Guard.fit(model, [detector], clean, fpr=args.fpr, seed=args.seed)
    spec, scorer = guard.specs[0], guard.fitted()[0]
    seen = Guarded(model, [(scorer, guard.threshold(spec))])
    blind = Guarded(model, [(Opaque(scorer), guard.threshold(spec))], to_float(clean.images))
    plans = [("pgd", "pgd:steps=40", seen), ("pgd_no_exit", "pgd:steps=40,early_exit=false", seen)]
    plans += [(name, f"detector_pgd:strategy={name}", seen) for name in ("orthogonal", "selective", "sum")]
    plans += [("feature_matching", "detector_pgd:strategy=selective", blind)]
    metrics: dict[str, Any] = {"clean_flagged": share(guard.answer(fresh).flagged), "start_flagged": share(guard.answer(right).flagged)}
    seconds = {}
    for eps in args.eps:
        for name, text, target in plans:
            evasion = dataclasses.replace(parse(text, "evasion"), eps=eps / 255)
            key = f"{name}_{eps:g}"
            metrics[key], seconds[key] = row(evasion, target, right, args.seed)
            print(key, {k: v[:1] if isinstance(v, list) else v for k, v in metrics[key].items()}, round(seconds[key]), flush=True)
    config = {
        "dataset": "cifar10",
        "model": Path(args.model).parent.name or args.model,
        "detector": to_spec(detector),
        "fpr": args.fpr,
        "fitted_on": len(clean),
        "images": len(right),
        "eps_255": args.eps,
        "attacks": {name: text for name, text, _ in plans},
        "seed": args.seed,
    }
    Card(kind="adaptive", config=config, metrics=metrics, seconds=seconds).write(args.out / f"{spec.partition(':')[0]}.json")


if __name__ == "__main__":
    main()
