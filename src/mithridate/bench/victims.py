"""Victims of a grid: made once, read by every defense that is judged on them."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mithridate import datasets, infect, methods
from mithridate.card import Card
from mithridate.data import Samples, Truth, to_float
from mithridate.datasets import Dataset
from mithridate.files import write_atomic
from mithridate.infect import Plan
from mithridate.judge import Key
from mithridate.nn.resolve import resolve
from mithridate.report.contact import Part, sheet
from mithridate.report.pictures import Attacked
from mithridate.roles import Craft, Progress
from mithridate.threats.dose import Dose, next_class
from mithridate.threats.poison import stamp

CARD, WEIGHTS = "card.json", "model.safetensors"
CHECKPOINT = "checkpoint.safetensors"
POISON = "poison.safetensors"
LOOK, SHOWN = "look.png", 4


@dataclass(frozen=True, eq=False)
class Loaded:
    """A finished victim: the model, and (judge only) what opens its backdoor.

    Of a victim whose card alone is left (`bench.finished`), the model is one that cannot be asked.
    """

    model: nn.Module
    card: Card
    key: Key | None
    folder: Path


def plan_of(config: Mapping[str, Any]) -> Plan:
    """What a victim cell's configuration asks for; the inverse of how plans are written into cells."""
    attack = None if config["attack"] is None else methods.parse(config["attack"])
    dose = dict(config["dose"])
    if dose.get("target") == "all-to-all":
        dose["target"] = next_class(len(dataset_of(config).train.classes))
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in dose.items()}
    return Plan(
        architecture=config["model"],
        attack=attack,
        dose=Dose(**fields),
        trainer=methods.parse(config["trainer"], "trainer"),
        seed=config["seed"],
    )


def dataset_of(config: Mapping[str, Any]) -> Dataset:
    """The images of a cell, on the worker's device; at most `images` of them to train on, where the cell says so."""
    size = config.get("size")
    return _dataset(config["dataset"], config["images"], config["seed"], None if size is None else (size[0], size[1]))


@functools.lru_cache(maxsize=2)
def _dataset(name: str, images: int | None, seed: int, size: tuple[int, int] | None) -> Dataset:
    found = datasets.load(name, size=size)
    train = found.train if images is None or images >= len(found.train) else found.train.split(images, seed=seed)[0]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return replace(found, train=train.to(device), test=found.test.to(device))


def make(config: Mapping[str, Any], out: Path, progress: Progress) -> Card:
    """Train a victim into a folder, going on from where a killed run left it."""
    plan, dataset = plan_of(config), dataset_of(config)
    out.mkdir(parents=True, exist_ok=True)
    victim = infect.make(plan, dataset, progress=progress, checkpoint=out / CHECKPOINT)
    if isinstance(plan.attack, Craft):  # a trigger that took minutes to make is not made again to see what it was put on
        save_file(_changed(dataset.train, victim.data.training), out / POISON)
    infect.write(victim, out)
    draw(out, dataset.test)
    (out / CHECKPOINT).unlink(missing_ok=True)
    return victim.card


class Gone(nn.Module):
    """In place of a victim whose weights are not there."""

    def forward(self, images: Tensor) -> Tensor:
        """Always raises RuntimeError."""
        raise RuntimeError("the victim's weights are gone, only its card is left")


def load(folder: Path, config: Mapping[str, Any]) -> Loaded:
    """The victim that `make` left in a folder, or what its card there tells of one whose other files are gone."""
    card, file, truth = Card.read(folder / CARD), folder / WEIGHTS, folder / "truth.json"
    if file.exists():
        model = resolve(str(file)).model.to(dataset_of(config).train.images.device).eval()
        return Loaded(model, card, infect.read_key(truth) if truth.exists() else None, folder)
    data = infect.contaminate(plan_of(card.config), dataset_of(card.config))
    return Loaded(Gone(), card, data.key, folder)


def training_set(victim: Loaded, config: Mapping[str, Any]) -> tuple[Samples, Truth | None]:
    """What the victim was trained on, and (judge only) what is wrong with it; None of a clean one."""
    plan, dataset = plan_of(config), dataset_of(config)
    if not (victim.folder / POISON).exists() or victim.key is None:
        data = infect.contaminate(plan, dataset)
        return data.training, data.truth
    changed, known = load_file(victim.folder / POISON), load_file(victim.folder / "truth.safetensors")
    images, labels = dataset.train.images.clone(), dataset.train.labels.clone()
    rows = changed["rows"].to(images.device)
    images[rows], labels[rows] = changed["images"].to(images.device), changed["labels"].to(labels.device)
    truth = Truth(known["poisoned"], known["labels"], victim.key.target, victim.key.spec, known.get("covers"), victim.key.sources)
    return Samples(images, labels, dataset.train.classes, dataset.train.names), truth


def draw(folder: Path, test: Samples) -> None:
    """Put a picture of a few test images, clean and stamped, beside a victim, for the report; a clean one needs none."""
    truth = folder / "truth.json"
    if not truth.exists():
        return
    key = infect.read_key(truth)
    few = test[key.counts(test.labels)][:SHOWN].to("cpu")
    stamped = Attacked(clean=to_float(few.images), perturbed=to_float(stamp(key.trigger, few).images))
    picture = io.BytesIO()
    sheet([Part(name="stamped", shown=stamped)]).save(picture, "PNG", optimize=True)
    write_atomic(folder / LOOK, picture.getvalue())


def _changed(clean: Samples, training: Samples) -> dict[str, Tensor]:
    """The rows in which a training set differs from the clean one, and what is in them."""
    differs = (clean.images != training.images).flatten(1).any(1) | (clean.labels != training.labels)
    rows = differs.nonzero().flatten()
    return {"rows": rows.cpu(), "images": training.images[rows].cpu(), "labels": training.labels[rows].cpu()}
