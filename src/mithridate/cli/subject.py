"""From what a user types to what is audited: the model, and the images in the form it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mithridate import datasets
from mithridate.audit import Subject
from mithridate.data import Samples
from mithridate.nn.cards import read_card
from mithridate.nn.modes import predict
from mithridate.nn.resolve import Resolved, resolve
from mithridate.report.schema import Loading


def read(
    model: str, clean: str, suspect: str | None, train: str | None, *, arch: str | None, size: int | None, root: Path | None, seed: int
) -> tuple[Subject, dict[str, Any]]:
    """The subject of an audit, and the card that its repaired weights get.

    Raises:
        MithridateError, ValueError: a model or images that cannot be read, or that do not fit each other.
    """
    card = read_card(Path(model)) if Path(model).is_file() else {}
    form = _form(card, size)
    known = datasets.images(clean, root=root, seed=seed, **form)
    count = len(known.classes) if Path(model).is_file() else None  # a weights file alone does not say what it was made for
    found = resolve(model, arch=arch, classes=count, channels=known.images.shape[1], size=known.images.shape[-1])
    known = _refit(found, known, clean, root, seed)
    form = {"channels": known.images.shape[1], "size": tuple(known.images.shape[2:])}
    inputs = None if suspect is None else datasets.images(suspect, root=root, seed=seed, **form)
    training = None if train is None else datasets.images(train, root=root, seed=seed, classes=known.classes, **form)
    predict(found.model, known[:1])  # a model that does not fit the images says so now, not after a minute
    shape = {"classes": list(known.classes), "input": list(known.images.shape[1:])}
    loading = Loading(
        source=model,
        kind=found.kind,
        architecture=found.architecture,
        parameters=sum(p.numel() for p in found.model.parameters()),
        sha256=found.sha256 or None,
        safe=found.safe,
    )
    subject = Subject(model=found.model, clean=known, suspect=inputs, training=training, loading=loading)
    return subject, {"arch": found.architecture} | shape | found.card


def _form(card: dict[str, Any], size: int | None) -> dict[str, Any]:
    """What the images must look like, as far as a card or the user says it."""
    channels, height, width = card.get("input", (None, size, size))
    names = card.get("classes")
    return {
        "channels": channels,
        "size": None if height is None else (height, width),
        "classes": names if isinstance(names, (list, tuple)) else None,
    }


def _refit(found: Resolved, known: Samples, clean: str, root: Path | None, seed: int) -> Samples:
    """The clean images in the size that the model's own card asks for."""
    form = _form(found.card, None)
    fits = form["size"] in (None, tuple(known.images.shape[2:])) and form["channels"] in (None, known.images.shape[1])
    return known if fits else datasets.images(clean, root=root, seed=seed, **form)
