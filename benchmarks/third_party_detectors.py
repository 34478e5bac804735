"""Judge every detector on third-party models: their own known triggers, and adversarial examples of them.

    python benchmarks/third_party_detectors.py MODELS_FOLDER [ID ...]

Folder and images as for third_party.py; nothing is tuned per model. Judged as `mithridate bench` judges detectors. Cards go to
results/grids/third_party/; what has one of today's code is skipped.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True)
class Question:
    """One model, detector and threat; `key` changes with the code that answers it."""

    about: dict[str, Any]
    detector: str
    evasion: str | None

    @property
    def defense(self) -> Any:
        """The detector, made anew."""
        return methods.parse(self.detector, "detector")

    @property
    def attacks(self) -> list[Any]:
        """The evasion, where there is one."""
        return [] if self.evasion is None else [methods.parse(self.evasion, "evasion")]

    @property
    def own(self) -> bool:
        """Whether it is about the model's own trigger."""
        return self.about["role"] == "infected" and self.evasion is None

    @property
    def config(self) -> dict[str, Any]:
        """Everything that defines it, as a card holds it."""
        return {
            "dataset": self.about["dataset"],
            "model": self.about["id"],
            "attack": f"its own {self.about['trigger']['kind']}" if self.own else None,
            "dose": {},
            "seed": 0,
            "defense": to_spec(self.defense),
            "role": "detector",
            "evasion": to_spec(self.attacks[0]) if self.attacks else None,
            "protocol": asdict(PROTOCOL),
        }

    @property
    def key(self) -> str:
        """Where its card lies."""
        return cell("judgment", self.config, [self.defense, *self.attacks]).key


def answer(question: Question, folder: Path, module: Any) -> Card:
    """The card of a question, judged."""
    about, config, key = question.about, question.config, None
    if question.own:
        key = Key(Known(about["trigger"], dict(np.load(folder / "triggers.npz"))), about["target"], about["trigger"]["kind"])
    victim = Loaded(module.load(about["id"]).eval(), Card(kind="victim", config={}, metrics={}), key, folder)
    parts = PROTOCOL.split(images(about["dataset"], folder), 0)
    found = judgments.detection(judgments.Case(config, question.defense, victim, victim, parts, PROTOCOL, None, None, folder, silent))
    return Card(kind="judgment", config=config, metrics=found.metrics, seconds=found.seconds, cost=found.cost, curves=found.curves)


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("ids", nargs="*")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "grids" / "third_party")
    args = parser.parse_args()
    torch.set_num_threads(1)
    module, store = architectures(args.folder), Store(args.out)
    abouts = described(args.folder, args.ids)
    asked = [Question(about, detector, evasion) for about in abouts for evasion in threats(about) for detector in DETECTORS]
    keys = {question.key for question in asked}
    print(f"{len(keys - store.keys())} of {len(asked)} cells to do", flush=True)
    for question in asked:
        if question.key not in store:
            card = answer(question, args.folder, module)
            store.write(question.key, card)
            threat = question.evasion or card.config["attack"] or "clean"
            print(question.about["id"], question.detector, threat, card.metrics.get("auroc"), flush=True)
    if not args.ids:
        for stale in store.keys() - keys:  # cards of earlier code
            store.forget(stale)


if __name__ == "__main__":
    main()
