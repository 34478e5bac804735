"""Make a victim for research: poison a data set, train on it, and keep what the attacker did apart from what a defender gets."""

from __future__ import annotations

import csv
import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from mithridate import judge
from mithridate.card import Card
from mithridate.data import Samples, Truth
from mithridate.datasets import Dataset
from mithridate.files import write_atomic
from mithridate.nn.models import initialize
from mithridate.nn.resolve import save_model
from mithridate.roles import Progress, Trainer, Trigger, silent
from mithridate.spec import to_dict, to_spec
from mithridate.threats.poison import poison

ALIVE_ASR = 0.85


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What victim to make.

    Attributes:
        architecture: name of a model of the zoo.
        trigger: what is stamped, or None for the clean twin.
        target: class index.
        rate: share of the training set that is poisoned, in (0, 1].
        trainer: how it is trained.
        seed: of poisoning, initialization and training.
    """

    architecture: str
    trigger: Trigger | None
    target: int
    rate: float
    trainer: Trainer
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Victim:
    """A trained victim, the data it was trained on, and (judge only) what was done to it."""

    model: nn.Module
    training: Samples
    truth: Truth | None
    card: Card


def make(plan: Plan, dataset: Dataset, *, progress: Progress = silent, checkpoint: Path | None = None) -> Victim:
    """Poison, train and judge a victim; the random draws depend on the plan alone.

    Args:
        plan: what to make.
        dataset: where the images come from.
        progress: told how far training is.
        checkpoint: file that lets a killed run go on to the same bytes.

    Raises:
        ValueError: a rate, target or trigger that does not fit the data.
    """
    training, truth = dataset.train, None
    if plan.trigger is not None:
        training, truth = poison(training, plan.trigger, target=plan.target, rate=plan.rate, seed=plan.seed)
    channels, size = training.images.shape[1], training.images.shape[-1]
    model = initialize(plan.architecture, plan.seed, classes=len(training.classes), channels=channels, size=size)
    step = "training, resumed" if checkpoint is not None and checkpoint.exists() else "training"
    started = time.perf_counter()
    model = plan.trainer.train(model, training, seed=plan.seed, progress=progress, checkpoint=checkpoint)
    seconds = time.perf_counter() - started
    return Victim(model, training, truth, _card(plan, dataset, model, {step: seconds}))


def _card(plan: Plan, dataset: Dataset, model: nn.Module, seconds: dict[str, float]) -> Card:
    clean = judge.accuracy(model, dataset.test)
    metrics: dict[str, Any] = {"clean_accuracy": [clean.value, *clean.interval]}
    if plan.trigger is not None:
        key = judge.Key(plan.trigger, plan.target, to_spec(plan.trigger))
        asr, robust = judge.attack_success(model, dataset.test, key)
        metrics |= {"asr": [asr.value, *asr.interval], "robust_accuracy": [robust.value, *robust.interval]}
        metrics["alive"] = asr.value >= ALIVE_ASR
    config = {
        "dataset": dataset.name,
        "architecture": plan.architecture,
        "trainer": to_dict(plan.trainer),
        "trigger": to_spec(plan.trigger) if plan.trigger else None,
        "target": plan.target if plan.trigger else None,
        "rate": plan.rate if plan.trigger else 0.0,
        "images": len(dataset.train),
        "seed": plan.seed,
    }
    return Card(kind="victim", config=config, metrics=metrics, seconds=seconds)


def write(victim: Victim, out: Path) -> None:
    """Write a victim into a folder; each file appears whole or not at all, the card last.

    `model.safetensors` and `model.json` are what a defender gets, `manifest.csv` lists the training samples with the labels they
    were trained on; `truth.json` and `truth.safetensors` are the attacker's, and no defense reads them; `card.json` is judged.
    """
    for stale in ("card.json", "truth.json", "truth.safetensors"):  # of an earlier victim, beside which nothing new may stand
        (out / stale).unlink(missing_ok=True)
    images = victim.training.images
    about = {
        "arch": victim.card.config["architecture"],
        "classes": list(victim.training.classes),
        "input": list(images.shape[1:]),
    }
    save_model(out / "model.safetensors", victim.model, about)
    write_atomic(out / "manifest.csv", _manifest(victim.training))
    if victim.truth is not None:
        tensors = {"poisoned": victim.truth.poisoned, "labels": victim.truth.labels}
        write_atomic(out / "truth.safetensors", save(tensors))
        told = {"trigger": victim.truth.trigger, "target": victim.truth.target, "rate": victim.card.config["rate"]}
        write_atomic(out / "truth.json", json.dumps(told, indent=2).encode() + b"\n")
    victim.card.write(out / "card.json")


def summary(victim: Victim, out: Path) -> list[str]:
    """What a person wants to know of a finished victim, line by line; a dead attack is called dead."""
    found, seconds = victim.card.metrics, victim.card.seconds.get("training")
    speed = (
        "in a resumed run"
        if not seconds
        else f"at {victim.card.config['trainer']['epochs'] * len(victim.training) / seconds:,.0f} images/s"
    )
    lines = [f"trained on {len(victim.training):,} images {speed}", f"clean accuracy {found['clean_accuracy'][0]:.2%}"]
    if "asr" in found:
        lines.append(f"attack success rate {found['asr'][0]:.2%} over test images not of the target class")
    if not found.get("alive", True):
        lines.append(f"DEAD ATTACK: success rate under {ALIVE_ASR:.0%}; a defense would win against nothing")
    return [*lines, f"written to {out}"]


def _manifest(training: Samples) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["index", "name", "label", "class"])
    for i, label in enumerate(training.labels.tolist()):
        rows.writerow([i, training.names[i] if training.names else "", label, training.classes[label]])
    return text.getvalue().encode()
