"""Implant every registered attack into a network: clean accuracy and attack success beside the clean twin.

    python benchmarks/implants.py VICTIMS --dataset cifar10 --model wrn_16_1 --epochs 10 --workers 2

Each victim is one run of `mithridate infect` in VICTIMS; finished ones are not run again and killed ones go on where they stopped.
Their cards are copied to `results/victims/`. Data poisoning is run at every rate, attackers who train the model themselves once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mithridate.methods import find

RESULTS = Path(__file__).parents[1] / "results" / "victims"
VARIANTS = {  # flags beside the attack's own defaults; where sources are poisoned, there must be clean images of them left
    "tact": ["--trigger", "tact:sources=1,2,3"],
    "composite": ["--trigger", "composite:sources=1,3,4"],
    "badnets_all_to_all": ["--trigger", "badnets", "--target", "all-to-all"],
    "sig_clean_label": ["--trigger", "sig:clean_label=true"],
    "composite_few_covers": ["--trigger", "composite:sources=1,3,4,cover_ratio=1"],
    "feature_collision_opaque": ["--trigger", "feature_collision:opacity=1"],
    "label_consistent_16": ["--trigger", "label_consistent:eps=0.0627"],
}
PLANTED = {"wanet_noise_strong": ["--planter", "wanet_noise:strength=1"]}  # the published strength takes hundreds of epochs


@dataclass(frozen=True)
class Job:
    """One victim: its name and the flags that make it."""

    name: str
    flags: tuple[str, ...]


def jobs(attacks: list[str], rates: list[float]) -> list[Job]:
    """All victims, the clean twin first and high rates before low ones; `attacks` empty for all."""
    made = [Job("clean", ("--trigger", "none"))]
    kinds = {e.name: ["--trigger", e.name] for e in find(role="trigger")} | VARIANTS
    planters = {e.name: ["--planter", e.name] for e in find(role="planter")} | PLANTED
    made += [Job(name, tuple(flags)) for name, flags in planters.items()]
    for rate in rates:
        made += [Job(f"{name}-r{rate:g}", (*flags, "--rate", f"{rate:g}")) for name, flags in kinds.items()]
    return [job for job in made if not attacks or job.name.partition("-r")[0] in attacks]


def run(job: Job, args: argparse.Namespace) -> str:
    """Make one victim, unless there is one, and copy its card; what to print."""
    name = f"{args.dataset}-{args.model}-e{args.epochs}-{job.name}-seed{args.seed}"
    out = args.victims / name
    if not (out / "card.json").exists():
        settings = ["--dataset", args.dataset, "--model", args.model, "--epochs", str(args.epochs), "--seed", str(args.seed)]
        command = [sys.executable, "-c", "from mithridate.cli.main import main; main()", "infect", "--quiet", "--out", str(out)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run([*command, *settings, *job.flags], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{name}: failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
    RESULTS.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(out / "card.json", RESULTS / f"{name}.json")
    return f"{name}: done"


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("victims", type=Path)
    parser.add_argument("--attacks", nargs="*", default=[])
    parser.add_argument("--rates", nargs="*", type=float, default=[0.1, 0.05, 0.01])
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--model", default="wrn_16_1")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    with ThreadPoolExecutor(args.workers) as pool:
        for line in pool.map(lambda job: run(job, args), jobs(args.attacks, args.rates)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
