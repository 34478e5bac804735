"""`mithridate infect`: make a victim for research."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:  # so that --help stays fast
    from mithridate.card import Card
    from mithridate.data import Samples
    from mithridate.datasets import Dataset
    from mithridate.infect import Plan, Poisoned, Victim
    from mithridate.roles import Craft, Planter, Progress, Trigger
    from mithridate.threats.dose import Target

CHECKPOINT = ".checkpoint.safetensors"


def infect(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder that gets the model, the manifest and, apart, the truth.")],
    dataset: Annotated[str, typer.Option(help="digits, cifar10, gtsrb, mnist, fashion_mnist, a folder, a zip or an .npz file.")] = "digits",
    model: Annotated[str, typer.Option(help="Architecture, such as wrn_16_1.")] = "lenet",
    trigger: Annotated[str, typer.Option(help="Trigger such as badnets:size=3, or none for the clean twin.")] = "badnets",
    planter: Annotated[Optional[str], typer.Option(help="An attacker who trains the model, such as input_aware; no trigger then.")] = None,  # noqa: UP045
    rate: Annotated[float, typer.Option(help="Share of the training set that is poisoned.")] = 0.1,
    count: Annotated[Optional[int], typer.Option(help="Poisoned images, in place of a rate.")] = None,  # noqa: UP045
    cover_rate: Annotated[float | None, typer.Option(help="Share that is stamped but keeps its label.")] = None,
    target: Annotated[str, typer.Option(help="Class that the trigger leads to, one for each class (1,2,0), or all-to-all.")] = "0",
    sources: Annotated[Optional[str], typer.Option(help="Poison only these classes, such as 1,2.")] = None,  # noqa: UP045
    clean_label: Annotated[Optional[bool], typer.Option(help="Poison only the target class and keep its label.")] = None,  # noqa: UP045
    trainer: Annotated[str, typer.Option(help="Training method; --trainer.epochs 20 sets a field.")] = "plain",
    epochs: Annotated[Optional[int], typer.Option(help="Passes over the data; the trainer's own default if not given.")] = None,  # noqa: UP045
    size: Annotated[Optional[int], typer.Option(help="Side in pixels that images are resized to; needed where they differ.")] = None,  # noqa: UP045
    twin: Annotated[Optional[Path], typer.Option(help="Folder of the clean twin; a victim far less accurate is called dead.")] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option(help="Seed of poisoning, initialization and training.")] = 0,
    data: Annotated[Optional[Path], typer.Option(help="Data root; else MITHRIDATE_DATA, else the user cache.")] = None,  # noqa: UP045
    export: Annotated[Optional[str], typer.Option(help="Also write the poisoned training set: npz or folder.")] = None,  # noqa: UP045
    train: Annotated[bool, typer.Option(help="Train a victim; --no-train only writes the poisoned training set.")] = True,
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Poison a data set, train on it and save the victim; a run that was killed goes on where it stopped.

    --trigger.FIELD, --planter.FIELD and --trainer.FIELD set their fields. What is left out of cover rate, sources and clean label is
    the trigger's own habit; a planter knows no dose but a target. See it: mithridate show --victim DIR.
    """
    from mithridate import datasets
    from mithridate import infect as infecting
    from mithridate.cli.bars import bars, say
    from mithridate.cli.flags import check, method
    from mithridate.files import claim
    from mithridate.threats.dose import Dose

    check(context.obj, ("trigger", "planter", "trainer"))
    if export not in (None, "npz", "folder"):
        raise ValueError(f"export must be npz or folder, got {export!r}")
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    claim(out)  # now, not after an hour of training
    with bars(quiet) as progress:
        source = datasets.load(dataset, root=data, size=None if size is None else (size, size), progress=progress)
        fields = {"flip": source.flips} | ({} if epochs is None else {"epochs": epochs})
        towards = _target(target, len(source.train.classes))
        dose = Dose(
            target=towards, rate=rate, count=count, cover_rate=cover_rate, sources=_integers("sources", sources), clean_label=clean_label
        )
        plan = infecting.Plan(
            architecture=model,
            attack=_attack(trigger, planter, context.obj, fields | {"target": towards}),
            dose=dose,
            trainer=method("trainer", trainer, context.obj, fields),
            seed=seed,
            twin=None if twin is None else _card(twin),
        )
        made = _victim(plan, source, out, progress) if train else infecting.contaminate(plan, source, progress=progress)
    say(*(_write_victim(made, out, export) if isinstance(made, infecting.Victim) else _write_data(made, out, export or "npz", rate)))


def _victim(plan: Plan, source: Dataset, out: Path, progress: Progress) -> Victim:
    from mithridate import infect as infecting

    return infecting.make(plan, source, progress=progress, checkpoint=out / CHECKPOINT)


def _write_victim(victim: Victim, out: Path, export: str | None) -> list[str]:
    from mithridate import infect as infecting

    infecting.write(victim, out)
    _export(victim.data.training, out, export)
    (out / CHECKPOINT).unlink(missing_ok=True)
    return infecting.summary(victim, out)


def _write_data(data: Poisoned, out: Path, export: str, rate: float) -> list[str]:
    from mithridate import infect as infecting

    infecting.write_data(data, out, rate)
    _export(data.training, out, export)
    poisoned = 0 if data.truth is None else int(data.truth.poisoned.sum())
    return [f"{poisoned:,} of {len(data.training):,} images poisoned", f"written to {out}"]


def _export(training: Samples, out: Path, export: str | None) -> None:
    from mithridate import datasets

    if export == "npz":
        datasets.write_npz(training, out / "train.npz")
    elif export == "folder":
        datasets.write_folder(training, out / "train")


def _attack(trigger: str, planter: str | None, flags: Sequence[str], fields: Mapping[str, Any]) -> Trigger | Craft | Planter | None:
    from mithridate.cli.flags import method

    attack: Trigger | Craft | Planter | None = None
    if planter is not None:
        attack = method("planter", planter, flags, fields)
    elif trigger != "none":
        attack = method("trigger", trigger, flags)
    return attack


def _target(text: str, classes: int) -> Target:
    from mithridate.threats.dose import next_class

    if text == "all-to-all":
        return next_class(classes)
    values = _integers("target", text) or ()
    return values[0] if len(values) == 1 else values


def _integers(field: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(each) for each in text.split(","))
    except ValueError as error:
        raise ValueError(f"{field} must be class indices such as 0 or 1,2, got {text!r}") from error


def _card(folder: Path) -> Card:
    from mithridate.card import Card
    from mithridate.errors import BadFile

    path = folder / "card.json" if folder.is_dir() else folder
    try:
        return Card.read(path)
    except (OSError, ValueError, TypeError) as error:
        raise BadFile(f"--twin {path}: not the card of a victim ({' '.join(str(error).split())[:120]})") from error
