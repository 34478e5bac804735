"""`mithridate analyse`: what benign, adversarial and backdoor inputs do to a model, in three views."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:  # so that --help stays fast
    from mithridate.audit import Subject
    from mithridate.data import Samples
    from mithridate.roles import Progress
    from mithridate.views.analysis import Analysis, Population


def analyse(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Weights file, timm:NAME, hub id, or file.py:callable.")],
    clean: Annotated[str, typer.Option(help="Images you vouch for, as for mithridate audit; half of them are the reference.")],
    attack: Annotated[list[str] | None, typer.Option(help="What makes adversarial inputs, such as pgd:eps=0.03; repeatable.")] = None,
    truth: Annotated[Optional[Path], typer.Option(help="truth.json of a victim: its trigger makes the backdoor inputs.")] = None,  # noqa: UP045
    suspect: Annotated[Optional[list[str]], typer.Option(help="Folder of inputs of which nobody knows what they are; repeatable.")] = None,  # noqa: UP045
    arch: Annotated[Optional[str], typer.Option(help="Architecture of its weights, unless its card says it.")] = None,  # noqa: UP045
    size: Annotated[Optional[int], typer.Option(help="Side of the model's input in pixels, if nothing else says it.")] = None,  # noqa: UP045
    count: Annotated[int, typer.Option(help="At most so many clean images are attacked and drawn.")] = 500,
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("analysis.html"),
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    data: Annotated[Optional[Path], typer.Option(help="Data root; else MITHRIDATE_DATA, else the user cache.")] = None,  # noqa: UP045
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Draw how the model treats benign, adversarial and backdoor inputs: sensitivity, class path, density and dimension."""
    from mithridate.cli.bars import bars, say
    from mithridate.cli.flags import check, several
    from mithridate.cli.subject import read
    from mithridate.datasets.overlap import unseen
    from mithridate.files import write_atomic
    from mithridate.report.views import render

    check(context.obj, ("evasion",))
    if out.is_dir():
        raise OSError(f"cannot write {out}: it is a folder")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    evasions = several("evasion", tuple(attack or ["pgd"]), context.obj)
    with bars(quiet) as progress:
        subject, _ = read(model, clean, None, None, arch=arch, size=size, root=data, seed=seed)
        found = [(Path(each).name or each, *unseen(_inputs(each, subject.clean, data, seed), subject.clean)) for each in suspect or ()]
        strange = [(name, inputs) for name, inputs, _ in found]
        made = _analysis(subject, evasions, truth, strange, (count, seed), progress)
    write_atomic(out, render(made).encode())
    say(*_lines(made), *(f"note: {name}: {note}" for name, _, note in found if note), f"written to {out}")


def _inputs(source: str, clean: Samples, root: Path | None, seed: int) -> Samples:
    from mithridate import datasets

    channels, height, width = clean.images.shape[1:]
    return datasets.images(source, channels=channels, size=(height, width), root=root, seed=seed)


def _analysis(
    subject: Subject, evasions: Any, truth: Path | None, strange: list[tuple[str, Samples]], draw: tuple[int, int], progress: Progress
) -> Analysis:
    from mithridate import infect
    from mithridate.methods import parse
    from mithridate.views import analyse as compute
    from mithridate.views import populations as make

    count, seed = draw
    reference, rest = subject.clean.split(len(subject.clean) // 2, seed=seed)
    shown = rest[:count]
    found: list[Population] = [make.benign(shown)]
    for spec in evasions:
        found.append(make.evaded(subject.model, parse(spec, "evasion"), shown, seed=seed))
    if truth is not None:
        found.append(make.triggered(subject.model, infect.read_key(truth), shown))
    found += [make.suspected(name, inputs[:count]) for name, inputs in strange]
    return compute(
        "/".join(Path(subject.loading.source).parts[-2:]) if subject.loading else "model",
        subject.model,
        reference,
        found,
        seed=seed,
        progress=progress,
    )


def _lines(made: Analysis) -> list[str]:
    """How far apart the populations are at best, a line a pair."""
    best: dict[tuple[str, str], Any] = {}
    for gap in made.gaps:
        pair, told = (gap.first, gap.second), gap.auroc
        if told is not None and (pair not in best or abs(told - 0.5) > abs(best[pair].auroc - 0.5)):
            best[pair] = gap
    return [f"{one} / {other}: AUROC {gap.auroc:.3f} by {gap.name} ({gap.view})" for (one, other), gap in best.items()]
