"""The baseline that no defense can have: plain training on what is left when exactly the poisoned images are left out.

    python benchmarks/abl_without_poison.py [ATTACK@RATE[>TARGET] ...] [--trainer plain:epochs=10,flip=true] [--seed 0]

Poison takes the place of good images, so a defense that does everything right still learns from fewer of them than the clean twin of a
grid, which has them all. Judged on the images of the grid `abl2021`, CIFAR-10 under MITHRIDATE_DATA. Writes a card a run to
results/abl/; a run that has a card is skipped, and one that was killed goes on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from mithridate import datasets, infect, judge, methods
from mithridate.bench.protocol import Protocol
from mithridate.card import Card
from mithridate.infect import Plan
from mithridate.nn.models import initialize
from mithridate.threats.dose import Dose

MODEL = "wrn_16_1"
ATTACKS = ("badnets@0.1", "badnets@0.05", "badnets@0.01", "sig:clean_label=true@0.05>2")  # who is poisoned depends on rate and labels only


def plan_of(attack: str, trainer: str, seed: int) -> Plan:
    """What `ATTACK@RATE[>TARGET]` says."""
    spec, _, dose = attack.rpartition("@")
    rate, _, target = dose.partition(">")
    made = Dose(rate=float(rate), target=int(target or 0))
    return Plan(architecture=MODEL, attack=methods.parse(spec, "trigger"), dose=made, trainer=methods.parse(trainer, "trainer"), seed=seed)


def run(plan: Plan, checkpoint: Path) -> Card:
    """One training, judged."""
    dataset, begun = datasets.load("cifar10"), time.perf_counter()
    made = infect.contaminate(plan, dataset)
    if made.truth is None or made.key is None:
        raise ValueError(f"attack must poison data, got {plan.attack}")
    left = made.training[~made.truth.poisoned]
    model = plan.trainer.train(initialize(MODEL, plan.seed, classes=10), left, seed=plan.seed, checkpoint=checkpoint)
    test = Protocol().split(dataset.test, plan.seed).test
    ours = test[made.key.counts(test.labels)]
    rates = {
        "clean_accuracy": judge.accuracy(model, test),
        "clean_accuracy_attacked": judge.accuracy(model, ours),
        "asr": judge.attack_success(model, test, made.key)[0],
    }
    metrics: dict[str, Any] = {name: [rate.value, *rate.interval] for name, rate in rates.items()} | {"images": len(left)}
    return Card(kind="without poison", config=infect.config(plan, dataset), metrics=metrics, seconds={"all": time.perf_counter() - begun})


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", nargs="*", default=ATTACKS)
    parser.add_argument("--trainer", default="plain:epochs=10,flip=true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "abl")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for attack in args.attacks:
        spec, _, dose = attack.rpartition("@")
        name = f"without-{spec.partition(':')[0]}-r{dose.partition('>')[0]}-seed{args.seed}"
        path, checkpoint = args.out / f"{name}.json", args.out / f".{name}.safetensors"
        if path.exists():
            continue
        card = run(plan_of(attack, args.trainer, args.seed), checkpoint)
        card.write(path)
        checkpoint.unlink(missing_ok=True)
        print(name, {each: value[0] for each, value in card.metrics.items() if each != "images"}, flush=True)


if __name__ == "__main__":
    main()
