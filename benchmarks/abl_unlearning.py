"""Unlearn the backdoor of the ABL authors' own infected WRN-16-1: 500 isolated images, learning rate 5e-4, 5 epochs.

    python benchmarks/abl_unlearning.py MODELS_FOLDER [--batch 64] [--seed 0]

MODELS_FOLDER is that of `third_party.py`; the images come from MITHRIDATE_DATA. A tenth of CIFAR-10 gets the authors' grid, our pass
isolates, and the judge looks after every epoch, over all test images and, as the authors do, over those that are not of the target.
A trained model is asked by the losses as they are: those recorded on the way have a floor that it has long left behind.
Writes a card to results/abl/.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from third_party import Known, architectures, described
from torch import nn

from mithridate import datasets, judge, loops
from mithridate.analysis.early import look
from mithridate.analysis.isolation import fast_learned, lowest
from mithridate.analysis.unlearning import Sides, divide, share_right, take_back, train_against
from mithridate.card import Card
from mithridate.data import Samples
from mithridate.judge import Key
from mithridate.threats.dose import Dose
from mithridate.threats.poison import poison

MODEL = "abl_wrn16_1_badnets_grid"
RATIO = 0.01
Measured = dict[str, float]


def measured(model: nn.Module, test: Samples, key: Key) -> Measured:
    """Clean accuracy over all images and over those that are not of the target, and ASR."""
    away = test.labels.ne(torch.as_tensor(key.target))
    others, target = test[away], test[~away]
    share = len(others) / len(test)
    right = judge.accuracy(model, others).value
    whole = share * right + (1 - share) * judge.accuracy(model, target).value
    return {"clean_accuracy": whole, "clean_accuracy_others": right, "asr": judge.attack_success(model, test, key)[0].value}


@dataclass(frozen=True)
class Form:
    """What is isolated, whether the unlearning has a bound, and whether it goes on while the rest is learned."""

    isolated: str
    bounded: bool
    joint: bool = False


FORMS = {
    "published, the lowest losses": Form("lowest", bounded=False),
    "published, the middle half of the fast population": Form("fast", bounded=False),
    "bounded, the middle half of the fast population": Form("fast", bounded=True),
    "joint and bounded, the middle half of the fast population": Form("fast", bounded=True, joint=True),
}


def run(model: nn.Module, sides: Sides, form: Form, args: argparse.Namespace, look_at: Callable[[nn.Module], Measured]) -> dict[str, Any]:
    """The course of one form."""
    course: list[Measured] = []

    def after(student: nn.Module, epochs: int) -> bool:
        course.append(look_at(student))
        print(" ", epochs, {name: round(value, 4) for name, value in course[-1].items()}, flush=True)
        return True

    recipe = loops.Recipe(epochs=5, batch_size=args.batch, lr=5e-4, schedule="constant", weight_decay=1e-4, pad=0)
    hooks = loops.Hooks(after=after)
    if form.joint:
        unlearned, notes = train_against(model, sides, recipe, least=share_right(model, sides.held), seed=args.seed, hooks=hooks)
        note = "; ".join(notes)
    else:
        unlearned, note = take_back(model, sides, recipe, bounded=form.bounded, seed=args.seed, hooks=hooks)
    return {"epochs": course, "kept": look_at(unlearned), "note": note, "unlearned": len(sides.bad), "rest": len(sides.rest)}


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "abl")
    args = parser.parse_args()
    torch.set_num_threads(1)
    (about,) = described(args.folder, [MODEL])
    key = Key(Known(about["trigger"], {}), about["target"], "grid")
    model, data = architectures(args.folder).load(MODEL), datasets.load("cifar10")
    samples, truth = poison(data.train, key.trigger, Dose(target=about["target"], rate=0.1), seed=args.seed)
    losses = look(model, samples)
    metrics: dict[str, Any] = {"before": measured(model, data.test, key)}
    isolated = {"lowest": lowest(losses, RATIO), "fast": fast_learned(losses, samples.labels)}
    for name, form in FORMS.items():
        print(name, flush=True)
        sides = divide(samples, isolated[form.isolated], losses, RATIO, args.seed, hold=form.bounded)
        metrics[name] = run(model, sides, form, args, lambda student: measured(student, data.test, key))
    for name, bad in isolated.items():
        hits = int(truth.poisoned[bad].sum())
        of_target = float(truth.labels[bad].eq(torch.as_tensor(key.target)).float().mean())
        metrics[f"isolated, {name}"] = {
            "count": int(bad.sum()), "precision": hits / int(bad.sum()), "recall": hits / int(truth.poisoned.sum()),
            "truly_of_target": of_target,
        }  # fmt: skip
    config = {"model": MODEL, "batch": args.batch, "seed": args.seed, "lr": 5e-4, "epochs": 5, "ratio": RATIO, "rate": 0.1}
    Card(kind="unlearning", config=config, metrics=metrics).write(args.out / "unlearning_demo.json")
    print(json.dumps(metrics, indent=1))


if __name__ == "__main__":
    main()
