"""The card of a victim: clean accuracy, attack success, and whether the attack is alive."""

from __future__ import annotations

from typing import Any

from torch import nn

from mithridate import judge
from mithridate.card import Card
from mithridate.data import Samples
from mithridate.datasets import Dataset
from mithridate.infect.plan import Plan, Poisoned
from mithridate.metrics import Rate
from mithridate.roles import Planter
from mithridate.spec import to_dict, to_spec

ALIVE_ASR = 0.85
ALIVE_COST = 0.03


def card(plan: Plan, dataset: Dataset, model: nn.Module, data: Poisoned, seconds: dict[str, float]) -> Card:
    """What the judge says of a finished victim."""
    metrics: dict[str, Any] = {"clean_accuracy": _interval(judge.accuracy(model, dataset.test))}
    if data.key is not None and data.truth is not None:
        metrics |= _success(model, dataset.test, data.key)
        truth = data.truth
        metrics |= {"poisoned": int(truth.poisoned.sum()), "covers": 0 if truth.covers is None else int(truth.covers.sum())}
        metrics |= _life(metrics, twin_accuracy(plan, dataset))
    return Card(kind="victim", config=config(plan, dataset), metrics=metrics, seconds=seconds)


def twin_accuracy(plan: Plan, dataset: Dataset) -> float | None:
    """Accuracy of the clean twin that the plan names; None if it names none.

    Raises:
        ValueError: a card that is not of a clean victim of the same data, architecture, training and seed.
    """
    if plan.twin is None:
        return None
    recipe = plan.attack if isinstance(plan.attack, Planter) else plan.trainer
    mine = config(plan, dataset) | {"epochs": getattr(recipe, "epochs", None)}
    theirs = plan.twin.config | {"epochs": plan.twin.config.get("trainer", {}).get("epochs")}
    for name in ("dataset", "architecture", "images", "seed", "epochs"):
        if theirs.get(name) != mine[name]:
            raise ValueError(f"twin must have the same {name}, {mine[name]}, got {theirs.get(name)}")
    if theirs.get("trigger") is not None:
        raise ValueError(f"twin must be clean, got a victim of {theirs['trigger']}")
    return float(plan.twin.metrics["clean_accuracy"][0])


def config(plan: Plan, dataset: Dataset) -> dict[str, Any]:
    """Every setting of a victim, as its card holds it."""
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
