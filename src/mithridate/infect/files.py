"""A victim in a folder: what a defender gets, and apart from it what the attacker did."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mithridate import judge, methods
from mithridate.data import Samples, Truth
from mithridate.errors import BadFile
from mithridate.files import write_atomic
from mithridate.infect.plan import Poisoned, Victim
from mithridate.nn.resolve import save_model
from mithridate.roles import Craft, Planter, Trigger


def write(victim: Victim, out: Path) -> None:
    """Write a victim into a folder; each file appears whole or not at all, the card last.

    `model.safetensors` and `model.json` are what a defender gets, with the files of `write_data`; `card.json` is judged.
    """
    (out / "card.json").unlink(missing_ok=True)
    images = victim.data.training.images
    about = {
        "arch": victim.card.config["architecture"],
        "classes": list(victim.data.training.classes),
        "input": list(images.shape[1:]),
    }
    save_model(out / "model.safetensors", victim.model, about)
    write_data(victim.data, out, victim.card.config["rate"])
    victim.card.write(out / "card.json")


def write_data(data: Poisoned, out: Path, rate: float | None) -> None:
    """Write what is known of a training set into a folder; each file appears whole or not at all.

    `manifest.csv` lists the training samples with the labels they are trained on; `truth.json` and `truth.safetensors` are the
    attacker's, and no defense reads them.
    """
    for stale in ("truth.json", "truth.safetensors"):  # of an earlier victim, beside which nothing new may stand
        (out / stale).unlink(missing_ok=True)
    write_atomic(out / "manifest.csv", _manifest(data.training))
    if data.truth is None:
        return
    write_atomic(out / "truth.safetensors", save(_tensors(data.truth, data.trigger)))
    told = {"trigger": data.truth.trigger, "target": data.truth.target, "sources": data.truth.sources, "rate": rate}
    write_atomic(out / "truth.json", json.dumps(told, indent=2).encode() + b"\n")


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
