"""`mithridate infect`: make a victim for research."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def infect(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder that gets the model, the manifest and, apart, the truth.")],
    dataset: Annotated[str, typer.Option(help="digits, cifar10, gtsrb, mnist, fashion_mnist, a folder or an .npz file.")] = "digits",
    model: Annotated[str, typer.Option(help="Architecture, such as wrn_16_1.")] = "lenet",
    trigger: Annotated[str, typer.Option(help="Trigger such as badnets:size=3, or none for the clean twin.")] = "badnets",
    rate: Annotated[float, typer.Option(help="Share of the training set that is poisoned.")] = 0.1,
    target: Annotated[int, typer.Option(help="Class that the trigger leads to.")] = 0,
    trainer: Annotated[str, typer.Option(help="Training method; --trainer.epochs 20 sets a field.")] = "plain",
    epochs: Annotated[Optional[int], typer.Option(help="Passes over the data; the trainer's own default if not given.")] = None,  # noqa: UP045
    size: Annotated[Optional[int], typer.Option(help="Side in pixels that images are resized to; needed where they differ.")] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option(help="Seed of poisoning, initialization and training.")] = 0,
    data: Annotated[Optional[Path], typer.Option(help="Data root; else MITHRIDATE_DATA, else the user cache.")] = None,  # noqa: UP045
    export: Annotated[Optional[str], typer.Option(help="Also write the poisoned training set: npz or folder.")] = None,  # noqa: UP045
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Poison a data set, train on it and save the victim; a run that was killed goes on where it stopped."""
    from mithridate import datasets
    from mithridate import infect as infecting
    from mithridate.cli.bars import bars, say
    from mithridate.cli.flags import check, method
    from mithridate.files import claim

    check(context.obj, ("trigger", "trainer"))
    if export not in (None, "npz", "folder"):
        raise ValueError(f"export must be npz or folder, got {export!r}")
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    claim(out)  # now, not after an hour of training
    with bars(quiet) as progress:
        source = datasets.load(dataset, root=data, size=None if size is None else (size, size), progress=progress)
        fields = {"flip": source.flips} | ({} if epochs is None else {"epochs": epochs})
        plan = infecting.Plan(
            architecture=model,
            trigger=None if trigger == "none" else method("trigger", trigger, context.obj),
            target=target,
            rate=rate,
            trainer=method("trainer", trainer, context.obj, fields),
            seed=seed,
        )
        checkpoint = out / ".checkpoint.safetensors"
        victim = infecting.make(plan, source, progress=progress, checkpoint=checkpoint)
    infecting.write(victim, out)
    if export == "npz":
        datasets.write_npz(victim.training, out / "train.npz")
    elif export == "folder":
        datasets.write_folder(victim.training, out / "train")
    checkpoint.unlink(missing_ok=True)
    say(*infecting.summary(victim, out))
