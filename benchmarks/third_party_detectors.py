"""Judge every detector on third-party models: their own known triggers, and adversarial examples of them.

    python benchmarks/third_party_detectors.py MODELS_FOLDER [ID ...]

Folder and images as for third_party.py; nothing is tuned per model. Judged as `mithridate bench` judges detectors. Cards go to
results/grids/third_party/; what has one is skipped.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from third_party import Known, architectures, described, images

from mithridate import methods
from mithridate.bench import Store, judgments
from mithridate.bench.cell import cell
from mithridate.bench.protocol import Protocol
from mithridate.bench.victims import Loaded
from mithridate.card import Card
from mithridate.judge import Key
from mithridate.roles import silent
from mithridate.spec import to_spec

DETECTORS = ("mutation", "activation_space", "kde", "lid", "mahalanobis", "squeezing", "unified")
EPS = {"mnist": 0.2}  # digits stand larger changes
RATE = {"mnist": 0.1}  # and leave the ends of tanh space at no smaller one
PROTOCOL = Protocol(test=2000)


def threats(about: dict[str, Any]) -> list[str | None]:
    """What a model is tried with: none is its own trigger, or false alarms only where it has none."""
    eps, lr = EPS.get(about["dataset"], 8 / 255), RATE.get(about["dataset"], 0.01)
    return [None, f"pgd:eps={eps:.6g}", f"cw:searches=3,steps=60,c=1,lr={lr:g}"]


def judged(about: dict[str, Any], folder: Path, module: Any, detector: str, evasion: str | None) -> tuple[str, Card]:
    """Key and card of one model, detector and threat."""
    key = None
    if about["role"] == "infected" and evasion is None:
        key = Key(Known(about["trigger"], dict(np.load(folder / "triggers.npz"))), about["target"], about["trigger"]["kind"])
    defense, attacks = methods.parse(detector, "detector"), [] if evasion is None else [methods.parse(evasion, "evasion")]
    config = {
        "dataset": about["dataset"],
        "model": about["id"],
        "attack": None if key is None else f"its own {about['trigger']['kind']}",
        "dose": {},
        "seed": 0,
        "defense": to_spec(defense),
        "role": "detector",
        "evasion": to_spec(attacks[0]) if attacks else None,
        "protocol": asdict(PROTOCOL),
    }
    victim = Loaded(module.load(about["id"]).eval(), Card(kind="victim", config={}, metrics={}), key, folder)
    parts = PROTOCOL.split(images(about["dataset"], folder), 0)
    found = judgments.detection(judgments.Case(config, defense, victim, victim, parts, PROTOCOL, None, None, folder, silent))
    card = Card(kind="judgment", config=config, metrics=found.metrics, seconds=found.seconds, cost=found.cost, curves=found.curves)
    return cell("judgment", config, [defense, *attacks]).key, card


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("ids", nargs="*")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "grids" / "third_party")
    args = parser.parse_args()
    torch.set_num_threads(1)
    module, store = architectures(args.folder), Store(args.out)
    there = {tuple(row["config"][name] for name in ("model", "defense", "evasion")) for row in store.rows()} if args.out.exists() else set()
    for about in described(args.folder, args.ids):
        for evasion in threats(about):
            for detector in DETECTORS:
                if (about["id"], detector, evasion) in there:
                    continue
                key, card = judged(about, args.folder, module, detector, evasion)
                store.write(key, card)
                print(about["id"], detector, evasion or card.config["attack"] or "clean", card.metrics.get("auroc"), flush=True)


if __name__ == "__main__":
    main()
