"""Make a victim for research: plant a backdoor, judge it, and keep what the attacker did apart from what a defender gets."""

from __future__ import annotations

import csv
import io
import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mithridate import judge, methods
from mithridate.card import Card
from mithridate.data import Samples, Truth
from mithridate.datasets import Dataset
from mithridate.errors import BadFile
from mithridate.files import write_atomic
from mithridate.metrics import Rate
from mithridate.nn.models import initialize
from mithridate.nn.resolve import save_model
from mithridate.roles import Craft, Planter, Progress, Trainer, Trigger, silent
from mithridate.spec import to_dict, to_spec
from mithridate.threats.dose import Dose
from mithridate.threats.poison import poison, ready

ALIVE_ASR = 0.85
ALIVE_COST = 0.03


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What victim to make.

    Attributes:
        architecture: name of a model of the zoo.
        attack: a trigger that is stamped on training images, a planter who trains the model itself, or None for the clean twin.
        dose: how much poison, and what it leads to; of a planter, only the target counts.
        trainer: how it is trained, unless by a planter.
        seed: of poisoning, initialization and training.
        twin: card of the clean twin, with whose accuracy the victim's is compared.

    Raises:
        ValueError: a planter with a target other than the dose's.
    """

    architecture: str
    attack: Trigger | Craft | Planter | None
    dose: Dose = field(default_factory=Dose)
    trainer: Trainer
    seed: int = 0
    twin: Card | None = None

    def __post_init__(self) -> None:
        if isinstance(self.attack, Planter) and self.attack.target != self.dose.target:
            raise ValueError(f"target must be the planter's own, {self.attack.target}, got {self.dose.target}")


@dataclass(frozen=True, eq=False)
class Victim:
    """A trained victim, the data it was trained on, and (judge only) what was done to it and what opens it."""

    model: nn.Module
    training: Samples
    truth: Truth | None
    trigger: Trigger | None
    card: Card


def make(plan: Plan, dataset: Dataset, *, progress: Progress = silent, checkpoint: Path | None = None) -> Victim:
    """Poison, train and judge a victim; the random draws depend on the plan alone.

    Args:
        plan: what to make.
        dataset: where the images come from.
        progress: told how far training is.
        checkpoint: file that lets a killed run go on to the same bytes.

    Raises:
        ValueError: a dose or an attack that does not fit the data, or a twin that is none.
    """
    training, truth, trigger = dataset.train, None, None
    plan.dose.check(len(training.classes))
    twin_accuracy(plan, dataset)
    channels, size = training.images.shape[1], training.images.shape[-1]
    model = initialize(plan.architecture, plan.seed, classes=len(training.classes), channels=channels, size=size)
    step, clock = "training, resumed" if checkpoint is not None and checkpoint.exists() else "training", _Clock()
    if isinstance(plan.attack, Planter):
        model, trigger = plan.attack.plant(model, training, seed=plan.seed, progress=progress, checkpoint=checkpoint)
        truth = Truth(torch.zeros(len(training), dtype=torch.bool), training.labels, plan.dose.target, to_spec(plan.attack))
    else:
        if plan.attack is not None:
            trigger = ready(plan.attack, training, plan.dose.target, seed=plan.seed, progress=progress)
            training, truth = poison(training, trigger, plan.dose.of(plan.attack), seed=plan.seed, progress=progress)
            truth = replace(truth, trigger=to_spec(plan.attack))
            clock.lap("poisoning")
        model = plan.trainer.train(model, training, seed=plan.seed, progress=progress, checkpoint=checkpoint)
    clock.lap(step)
    return Victim(model, training, truth, trigger, _card(plan, dataset, model, (trigger, truth), clock.laps))


class _Clock:
    """Seconds of each step."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.since = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.laps[step], self.since = now - self.since, now


def twin_accuracy(plan: Plan, dataset: Dataset) -> float | None:
    """Accuracy of the clean twin that the plan names; None if it names none.

    Raises:
        ValueError: a card that is not of a clean victim of the same data, architecture, training and seed.
    """
    if plan.twin is None:
        return None
    recipe = plan.attack if isinstance(plan.attack, Planter) else plan.trainer
    mine = _config(plan, dataset) | {"epochs": getattr(recipe, "epochs", None)}
    theirs = plan.twin.config | {"epochs": plan.twin.config.get("trainer", {}).get("epochs")}
    for name in ("dataset", "architecture", "images", "seed", "epochs"):
        if theirs.get(name) != mine[name]:
            raise ValueError(f"twin must have the same {name}, {mine[name]}, got {theirs.get(name)}")
    if theirs.get("trigger") is not None:
        raise ValueError(f"twin must be clean, got a victim of {theirs['trigger']}")
    return float(plan.twin.metrics["clean_accuracy"][0])


def _config(plan: Plan, dataset: Dataset) -> dict[str, Any]:
    about: dict[str, Any] = {"dataset": dataset.name, "architecture": plan.architecture, "images": len(dataset.train), "seed": plan.seed}
    if isinstance(plan.attack, Planter):
        return about | {"trainer": to_dict(plan.attack), "trigger": to_spec(plan.attack), "target": plan.dose.target, "rate": None}
    if plan.attack is None:
        return about | {"trainer": to_dict(plan.trainer), "trigger": None, "target": None, "rate": 0.0}
    dose = plan.dose.of(plan.attack)
    target = dose.target if isinstance(dose.target, int) else list(dose.target)
    amount = {"target": target, "rate": dose.rate, "clean_label": dose.clean_label, "sources": list(dose.sources or ())}
    optional = {"count": dose.count, "cover_rate": dose.cover_rate}
    given = {key: value for key, value in optional.items() if value is not None}
    return about | {"trainer": to_dict(plan.trainer), "trigger": to_spec(plan.attack)} | amount | given


def _card(plan: Plan, dataset: Dataset, model: nn.Module, done: tuple[Trigger | None, Truth | None], seconds: dict[str, float]) -> Card:
    metrics: dict[str, Any] = {"clean_accuracy": _interval(judge.accuracy(model, dataset.test))}
    trigger, truth = done
    if trigger is not None and truth is not None:
        key = judge.Key(trigger, truth.target, truth.trigger, truth.sources)
        metrics |= _success(model, dataset.test, key)
        metrics |= {"poisoned": int(truth.poisoned.sum()), "covers": 0 if truth.covers is None else int(truth.covers.sum())}
        metrics |= _life(metrics, twin_accuracy(plan, dataset))
    return Card(kind="victim", config=_config(plan, dataset), metrics=metrics, seconds=seconds)


def _success(model: nn.Module, test: Samples, key: judge.Key) -> dict[str, Any]:
    asr, robust = judge.attack_success(model, test, key)
    found = {"asr": _interval(asr), "robust_accuracy": _interval(robust)}
    for name, rate in (("leak", judge.leak(model, test, key)), ("cross_accuracy", judge.cross_accuracy(model, test, key))):
        if rate is not None:
            found[name] = _interval(rate)
    return found


def _life(metrics: dict[str, Any], twin: float | None) -> dict[str, Any]:
    """Whether the attack is alive, and if not, why."""
    reasons = []
    if metrics["asr"][0] < ALIVE_ASR:
        reasons.append(f"success rate {metrics['asr'][0]:.1%} is under {ALIVE_ASR:.0%}")
    if twin is None:
        return {"alive": not reasons, "dead": reasons}
    cost = twin - metrics["clean_accuracy"][0]
    if cost > ALIVE_COST:
        reasons.append(f"accuracy is {100 * cost:.1f} points under the clean twin's {twin:.1%}")
    return {"alive": not reasons, "dead": reasons, "accuracy_cost": cost}


def _interval(rate: Rate) -> list[float]:
    return [rate.value, *rate.interval]


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
        write_atomic(out / "truth.safetensors", save(_tensors(victim.truth, victim.trigger)))
        told = {"trigger": victim.truth.trigger, "target": victim.truth.target, "sources": victim.truth.sources}
        write_atomic(out / "truth.json", json.dumps(told | {"rate": victim.card.config["rate"]}, indent=2).encode() + b"\n")
    victim.card.write(out / "card.json")


def read_key(path: Path) -> judge.Key:
    """The answer key that `write` left in a `truth.json`; what a crafted or planted trigger is made of lies beside it.

    Raises:
        BadFile: not such a file, or the tensors beside it do not fit.
    """
    try:
        told = json.loads(path.read_text("utf-8"))
        attack = methods.parse(told["trigger"])
        trigger = attack.restore(_state(path.with_suffix(".safetensors"))) if isinstance(attack, (Craft, Planter)) else attack
        target = told["target"] if isinstance(told["target"], int) else tuple(int(each) for each in told["target"])
        return judge.Key(trigger, target, told["trigger"], tuple(int(each) for each in told.get("sources", ())))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise BadFile(f"{path}: not a truth.json of mithridate infect ({' '.join(str(error).split())[:120]})") from error


def _state(path: Path) -> dict[str, Tensor]:
    return {name.removeprefix("trigger."): tensor for name, tensor in load_file(path).items() if name.startswith("trigger.")}


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
    if "leak" in found:
        lines.append(f"over the classes that are no sources {found['leak'][0]:.2%}")
    if "cross_accuracy" in found:
        lines.append(f"accuracy with the trigger of another image {found['cross_accuracy'][0]:.2%}")
    if not found.get("alive", True):
        lines.append(f"DEAD ATTACK: {', '.join(found['dead'])}; a defense would win against nothing")
    return [*lines, f"written to {out}"]


def _tensors(truth: Truth, trigger: Trigger | None) -> dict[str, Tensor]:
    """Which samples are malicious, their labels, and what a crafted or planted trigger is made of."""
    found = {"poisoned": truth.poisoned, "labels": truth.labels}
    if truth.covers is not None:
        found["covers"] = truth.covers
    if isinstance(trigger, nn.Module):
        found |= {f"trigger.{name}": tensor.contiguous() for name, tensor in trigger.state_dict().items()}
    return found


def _manifest(training: Samples) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["index", "name", "label", "class"])
    for i, label in enumerate(training.labels.tolist()):
        rows.writerow([i, training.names[i] if training.names else "", label, training.classes[label]])
    return text.getvalue().encode()
