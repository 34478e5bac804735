"""`mithridate screen`: training images from the most suspicious to the least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:  # so that --help stays fast
    from torch import nn

    from mithridate.cli.training import Given
    from mithridate.report.ranking import Ranking
    from mithridate.roles import Progress, Screen, Trainer

CHECKPOINT = ".checkpoint.safetensors"


def screen(
    context: typer.Context,
    images: Annotated[str, typer.Argument(help="Training images: class folders, a zip, an .npz, or a set such as cifar10:train:5000.")],
    model: Annotated[Optional[str], typer.Option(help="The model that was trained on them, as for mithridate audit MODEL.")] = None,  # noqa: UP045
    method: Annotated[str, typer.Option(help="What ranks them; --method.FIELD sets a field.")] = "spectral_signature",
    arch: Annotated[Optional[str], typer.Option(help="Architecture. [default: the model's; wrn_16_1 without one]")] = None,  # noqa: UP045
    epochs: Annotated[Optional[int], typer.Option(help="Passes over the images, where a model is trained. [default: 20]")] = None,  # noqa: UP045
    size: Annotated[Optional[int], typer.Option(help="Side in pixels that images are resized to; needed where they differ.")] = None,  # noqa: UP045
    truth: Annotated[Optional[Path], typer.Option(help="truth.json of mithridate infect, for the judge's section only.")] = None,  # noqa: UP045
    out: Annotated[Path, typer.Option(help="Folder for the table and the page.")] = Path("mithridate-screen"),
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    data: Annotated[Optional[Path], typer.Option(help="Data root; else MITHRIDATE_DATA, else the user cache.")] = None,  # noqa: UP045
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Rank training images by suspicion.

    Without --model, a plain one is trained on these very images first (--trainer.FIELD sets its fields), unless the method trains its own.
    """
    from mithridate.cli import training
    from mithridate.cli import truth as answers
    from mithridate.cli.bars import bars, say
    from mithridate.cli.flags import check
    from mithridate.files import claim

    check(context.obj, ("screen", "trainer"))
    plan = _plan(method, images, model, epochs, context.obj)
    plan = replace(plan, arch=arch, seed=seed, checkpoint=out / CHECKPOINT)
    claim(out)  # now, not after a model was trained
    with bars(quiet) as progress:
        judged, given = _read(plan, images, size, data, progress)
        told = None if truth is None else answers.read(truth, given.samples)
    say(*given.lines)
    with bars(quiet) as progress:
        if model is None and not plan.trains:
            judged = plan.trainer.train(judged, given.samples, seed=seed, progress=progress, checkpoint=plan.checkpoint)
        ranking = training.ranked(plan.screen.screen(judged, given.samples, seed=seed, progress=progress), given.samples, told)
    say(*_write(plan, ranking, given, told))


@dataclass(frozen=True)
class _Plan:
    """What the user asked for; `trains` says whether the method trains its own model, and needs none but an architecture."""

    screen: Screen
    trains: bool
    trainer: Trainer
    model: str | None
    arch: str | None = None
    seed: int = 0
    checkpoint: Path = Path(CHECKPOINT)

    @property
    def origin(self) -> str:
        """Where the model comes from."""
        from mithridate.cli.training import ARCHITECTURE
        from mithridate.spec import to_spec

        name = self.model or self.arch or ARCHITECTURE
        if self.trains:
            return f"{name}, its architecture alone; the method trains its own"
        return name if self.model else f"{name}, trained on these very images by {to_spec(self.trainer)}"

    def doubts(self, count: int) -> tuple[str, ...]:
        """Why a ranking of so many images tells little, a sentence, where the method's own training is short."""
        from mithridate.analysis.early import SETTLED
        from mithridate.loops import Recipe

        if not isinstance(self.screen, Recipe) or (steps := self.screen.epochs * self.screen.steps(count)) >= SETTLED:
            return ()
        return (
            f"trained for {steps} steps, and under {SETTLED} tell little: smaller batches (--method.batch-size) or more --epochs tell more",
        )


def _plan(method: str, images: str, model: str | None, epochs: int | None, flags: Sequence[str]) -> _Plan:
    """What shall rank the images, and what shall train a model for it where none is given; epochs are for whichever trains."""
    from mithridate.cli.training import configured
    from mithridate.loops import Recipe

    screen: Screen = configured("screen", method, images, None, flags)
    trains = isinstance(screen, Recipe)
    if epochs is not None and model is not None and not trains:
        raise ValueError(f"--epochs is for a model that is trained, and --model gives one that is, got {epochs}")
    if trains:
        screen = configured("screen", method, images, epochs, flags)
    return _Plan(screen, trains, configured("trainer", "plain", images, None if trains else epochs, flags), model)


def _read(plan: _Plan, images: str, size: int | None, root: Path | None, progress: Progress) -> tuple[nn.Module, Given]:
    """The model, an untrained one if none was named, and the images in the form that it takes."""
    from mithridate.cli.training import ARCHITECTURE, form, given
    from mithridate.nn.cards import read_card
    from mithridate.nn.models import initialize
    from mithridate.nn.modes import predict
    from mithridate.nn.resolve import resolve

    if plan.model is None:
        found = given(images, form(size, plan.seed), root, progress)
        return initialize(plan.arch or ARCHITECTURE, plan.seed, **found.shape), found
    file = Path(plan.model).is_file()
    found = given(images, form(size, plan.seed, read_card(Path(plan.model)) if file else None), root, progress)
    resolved = resolve(plan.model, arch=plan.arch, **(found.shape | ({} if file else {"classes": None})))  # type: ignore[arg-type]
    if resolved.card["input"] != list(found.samples.images.shape[1:]):
        found = given(images, form(None, plan.seed, resolved.card), root, progress)
    predict(resolved.model, found.samples[:1])  # a model that does not fit the images says so now
    return resolved.model, found


def _write(plan: _Plan, ranking: Ranking, given: Given, told: Any) -> list[str]:
    """Table and page; what they say in a few lines."""
    from mithridate.cli.training import parquet, rates, settings
    from mithridate.files import write_atomic
    from mithridate.report.suspects import Page, render
    from mithridate.spec import to_spec

    out, flagged = plan.checkpoint.parent, int(ranking.flagged.sum())
    verdict = f"{flagged:,} of {len(ranking.samples):,} images stand out" if flagged else "No image stands out"
    doubts = plan.doubts(len(ranking.samples))
    page = Page(
        title=given.name,
        verdict=f"{verdict} from the others of their class." if flagged else f"{verdict} from the others of its class.",
        tone="warn" if flagged else "none" if doubts else "ok",
        notes=doubts,
        remarks=given.remarks,
        ranking=ranking,
        attack="" if told is None else told[1].spec,
        settings={"method": to_spec(plan.screen), "model": plan.origin} | settings(given, plan.seed),
    )
    write_atomic(out / "ranking.csv", ranking.csv())
    tables = [str(out / "ranking.csv"), *parquet(ranking, out / "ranking.parquet")]
    write_atomic(out / "screen.html", render(page).encode("utf-8", "replace"))
    plan.checkpoint.unlink(missing_ok=True)
    return [verdict, *doubts, *rates(ranking), f"ranking: {', '.join(tables)}", f"page: {out / 'screen.html'}"]
