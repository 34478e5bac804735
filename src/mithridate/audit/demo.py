"""The embedded default: a victim made from scikit-learn's digits in seconds, and its audit by a stranger."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from mithridate import infect
from mithridate.audit.ends import Subject
from mithridate.data import Samples
from mithridate.datasets import load
from mithridate.defenses.trainers.plain import Plain
from mithridate.judge import Key
from mithridate.report.schema import Loading
from mithridate.roles import Progress, silent
from mithridate.spec import to_spec
from mithridate.threats.dose import Dose
from mithridate.threats.poison import stamp
from mithridate.threats.triggers.badnets import BadNets

CLEAN = 500  # images the stranger keeps from the victim's maker


@dataclass(frozen=True, eq=False)
class Demo:
    """A subject to audit and, apart from it, what only the judge may know."""

    subject: Subject
    key: Key | None
    fresh: Samples


def make(*, infected: bool = True, seed: int = 0, progress: Progress = silent) -> Demo:
    """Train a small network on digits, poisoned with a white patch (or its clean twin), and set the stranger's images aside.

    The target class is drawn from the seed. Half of the suspect inputs carry the trigger; the stranger is not told which.
    """
    digits = load("digits")
    target = int(torch.randint(10, (1,), generator=torch.Generator().manual_seed(seed)))
    trigger = BadNets(pattern="white")
    clean, training = digits.train.split(CLEAN, seed=seed)
    plan = infect.Plan(
        architecture="lenet",
        attack=trigger if infected else None,
        dose=Dose(target=target, rate=0.1),
        trainer=Plain(epochs=30, batch_size=64, lr=0.02, pad=1),
        seed=seed,
    )
    victim = infect.make(plan, dataclasses.replace(digits, train=training), progress=progress)
    subject = Subject(
        model=victim.model,
        clean=clean,
        suspect=_mixed(digits.test, trigger, infected, seed),
        training=victim.data.training,
        loading=_loading(victim),
    )
    return Demo(subject, Key(trigger, target, to_spec(trigger)) if infected else None, digits.test)


def _mixed(test: Samples, trigger: BadNets, infected: bool, seed: int) -> Samples:
    """200 inputs as a stranger sends them, half of them stamped if the model is infected, in random order."""
    clean, others, _ = test.split(100, 100, seed=seed)
    second = stamp(trigger, others) if infected else others
    order = torch.randperm(200, generator=torch.Generator().manual_seed(seed))
    images = torch.cat([clean.images, second.images])[order]
    names = tuple(f"upload-{i:03d}.png" for i in range(200))
    return Samples(images, torch.zeros(200, dtype=torch.int64), test.classes, names)


def _loading(victim: infect.Victim) -> Loading:
    return Loading(
        source="demo: trained a moment ago on scikit-learn's digits",
        kind="module",
        architecture=victim.card.config["architecture"],
        parameters=sum(p.numel() for p in victim.model.parameters()),
        sha256=None,
        safe=True,
    )
