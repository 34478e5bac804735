"""Poison, train and judge."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch

from mithridate.data import Truth
from mithridate.datasets import Dataset
from mithridate.infect.cards import card, twin_accuracy
from mithridate.infect.plan import Plan, Poisoned, Victim
from mithridate.nn.models import initialize
from mithridate.roles import Planter, Progress, silent
from mithridate.spec import to_spec
from mithridate.threats.poison import poison, ready


def contaminate(plan: Plan, dataset: Dataset, *, progress: Progress = silent) -> Poisoned:
    """The training set of a plan, before anybody trains on it.

    Raises:
        ValueError: a dose or a trigger that does not fit the data, or an attacker who trains the model himself.
    """
    plan.dose.check(len(dataset.train.classes))
    if plan.attack is None:
        return Poisoned(dataset.train)
    if isinstance(plan.attack, Planter):
        raise ValueError(f"attack must poison data, got {to_spec(plan.attack)}, which trains the model itself")
    trigger = ready(plan.attack, dataset.train, plan.dose.target, seed=plan.seed, progress=progress)
    training, truth = poison(dataset.train, trigger, plan.dose.of(plan.attack), seed=plan.seed, progress=progress)
    return Poisoned(training, replace(truth, trigger=to_spec(plan.attack)), trigger)


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
    clean = dataset.train
    plan.dose.check(len(clean.classes))
    twin_accuracy(plan, dataset)
    shape = {"classes": len(clean.classes), "channels": clean.images.shape[1], "size": clean.images.shape[-1]}
    model = initialize(plan.architecture, plan.seed, **shape).to(clean.images.device)
    step, clock = "training, resumed" if checkpoint is not None and checkpoint.exists() else "training", _Clock()
    if isinstance(plan.attack, Planter):
        model, trigger = plan.attack.plant(model, clean, seed=plan.seed, progress=progress, checkpoint=checkpoint)
        nothing = torch.zeros(len(clean), dtype=torch.bool)
        data = Poisoned(clean, Truth(nothing, clean.labels, plan.attack.target, to_spec(plan.attack)), trigger)
    else:
        data = contaminate(plan, dataset, progress=progress)
        clock.lap("poisoning")
        model = plan.trainer.train(model, data.training, seed=plan.seed, progress=progress, checkpoint=checkpoint)
    clock.lap(step)
    return Victim(model, data, card(plan, dataset, model, data, clock.laps))


class _Clock:
    """Seconds of each step."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.since = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.laps[step], self.since = now - self.since, now
