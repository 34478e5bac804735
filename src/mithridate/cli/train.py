"""`mithridate train`: a model from images nobody vouches for."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:  # so that --help stays fast
    from torch import nn

    from mithridate.cli.training import Given
    from mithridate.data import Samples
    from mithridate.judge import Key
    from mithridate.report.ranking import Ranking
    from mithridate.report.suspects import Page, Step
    from mithridate.reporting import Learned
    from mithridate.roles import Progress, Trainer


def train(
    context: typer.Context,
    images: Annotated[str, typer.Argument(help="Training images: class folders, a zip, an .npz, or a set such as cifar10:train:5000.")],
    out: Annotated[Path, typer.Option(help="Weights to write; the card, the suspected files and the page come beside them.")],
    defense: Annotated[str, typer.Option(help="How to train; --defense.FIELD sets a field; plain defends against nothing.")] = "abl",
    arch: Annotated[Optional[str], typer.Option(help="Architecture. [default: wrn_16_1]")] = None,  # noqa: UP045
    epochs: Annotated[Optional[int], typer.Option(help="Passes over the images. [default: the defense's own]")] = None,  # noqa: UP045
    size: Annotated[Optional[int], typer.Option(help="Side in pixels that images are resized to; needed where they differ.")] = None,  # noqa: UP045
    truth: Annotated[Optional[Path], typer.Option(help="truth.json of mithridate infect, for the judge's section only.")] = None,  # noqa: UP045
    judge_on: Annotated[Optional[str], typer.Option(help="With --truth: images on which the judge follows accuracy and attack.")] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option(help="Seed of initialization and training.")] = 0,
    data: Annotated[Optional[Path], typer.Option(help="Data root; else MITHRIDATE_DATA, else the user cache.")] = None,  # noqa: UP045
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Train a model on images that nobody vouches for; a run that was killed goes on where it stopped.

    --defense.FIELD sets a field of the defense. Beside model.safetensors come model.json, model.suspects.csv and model.html.
    """
    from mithridate.cli import key as keys
    from mithridate.cli import training
    from mithridate.cli import truth as answers
    from mithridate.cli.bars import bars, say
    from mithridate.cli.flags import check
    from mithridate.nn.models import initialize

    check(context.obj, ("trainer",))
    if judge_on is not None and truth is None:
        raise ValueError("--judge-on needs --truth")
    plan = _Plan(training.configured("trainer", defense, images, epochs, context.obj), arch or training.ARCHITECTURE, seed, out)
    _claim(out)  # now, not after an hour of training
    with bars(quiet) as progress:
        given = training.given(images, training.form(size, seed), data, progress)
        model = initialize(plan.arch, plan.seed, **given.shape).eval()
        told = None if truth is None else answers.read(truth, given.samples)
        fresh = None if judge_on is None else keys.unseen(judge_on, given.samples, "the training images", data, seed)
    say(*given.lines)
    with bars(quiet) as progress:
        judge = _Judge(None if told is None else told[1], fresh)
        learned, model = _learn(plan, model, given.samples, judge, progress)
    ranking = None if learned is None else training.ranked(learned.suspicion, given.samples, told, learned.suspected)
    page = _page(plan, given, learned, ranking, judge)
    say(*_write(plan, given, model, page))


@dataclass(frozen=True)
class _Plan:
    """What the user asked for."""

    trainer: Trainer
    arch: str
    seed: int
    out: Path

    @property
    def checkpoint(self) -> Path:
        return self.out.with_name(f".{self.out.stem}.checkpoint.safetensors")


class _Judge:
    """Follows clean accuracy and attack success while a model is trained; without a key or images it looks at nothing."""

    def __init__(self, key: Key | None, fresh: Samples | None) -> None:
        self.key, self.fresh = key, fresh
        self.course: list[Step] = []

    def __call__(self, stage: str, epoch: int, model: nn.Module) -> None:
        from mithridate import judge
        from mithridate.report.suspects import Step

        if self.key is not None and self.fresh is not None:
            success, _ = judge.attack_success(model, self.fresh, self.key)
            self.course.append(Step(stage, epoch, judge.accuracy(model, self.fresh).value, success.value))


def _claim(out: Path) -> None:
    """Refuse weights that could not be written, or that this command did not make.

    Raises:
        ValueError: a name that does not end in `.safetensors`, or somebody else's weights or card.
        OSError: the folder cannot be made or written to.
    """
    from mithridate.files import claim_file
    from mithridate.nn.cards import read_card

    claim_file(out, ".safetensors")
    if (out.exists() or out.with_suffix(".json").exists()) and "defense" not in read_card(out):
        raise ValueError(f"out must be new, or weights that mithridate train wrote before, got {out}")


def _learn(plan: _Plan, fresh: nn.Module, samples: Samples, judge: _Judge, progress: Progress) -> tuple[Learned | None, nn.Module]:
    """The model, and what the defense saw, if it says so."""
    from mithridate.reporting import Reporting

    judge("start", 0, fresh)
    about: dict[str, Any] = {"seed": plan.seed, "progress": progress, "checkpoint": plan.checkpoint}
    if isinstance(plan.trainer, Reporting):
        learned = plan.trainer.learn(fresh, samples, **about, watch=judge)
        judge("end", 0, learned.model)
        return learned, learned.model
    model = plan.trainer.train(fresh, samples, **about)
    judge("end", 0, model)
    return None, model


def _verdict(plan: _Plan, learned: Learned | None, of: int) -> tuple[str, str, tuple[str, ...]]:
    """The outcome, its tone, and what the defense saw."""
    from mithridate.spec import to_spec

    spec, trained = to_spec(plan.trainer), f"Trained on all {of:,} images"
    if learned is None:
        return f"{trained} by {spec}, which looks for no poison.", "none", ()
    notes = (*learned.notes, learned.doubt) if learned.doubt else learned.notes
    if flagged := int(learned.suspected.sum()):
        return f"{flagged:,} of {of:,} images are held for poisoned and kept apart.", "warn", notes
    if learned.doubt:
        return f"{trained}; too little was learned early to say whether any is poisoned.", "none", notes
    return f"{trained}; {spec.partition(':')[0]} suspects none of them.", "ok", notes


def _page(plan: _Plan, given: Given, learned: Learned | None, ranking: Ranking | None, judge: _Judge) -> Page:
    """What the page tells."""
    from mithridate.cli.training import settings
    from mithridate.report.suspects import Page
    from mithridate.spec import to_spec

    verdict, tone, notes = _verdict(plan, learned, len(given.samples))
    return Page(
        title=given.name,
        verdict=verdict,
        tone=tone,
        notes=notes,
        remarks=given.remarks,
        ranking=ranking,
        losses=None if learned is None else learned.losses,
        course=tuple(judge.course),
        attack="" if judge.key is None else judge.key.spec,
        settings={"defense": to_spec(plan.trainer), "architecture": plan.arch} | settings(given, plan.seed),
    )


def _write(plan: _Plan, given: Given, model: nn.Module, page: Page) -> list[str]:
    """Weights first, so that nothing can be lost any more, then what is said of them; what it comes to in a few lines."""
    from mithridate.cli.training import rates
    from mithridate.files import write_atomic
    from mithridate.nn.resolve import save_model
    from mithridate.report.ranking import HEADER
    from mithridate.report.suspects import render
    from mithridate.spec import to_spec

    shape = {"classes": list(given.samples.classes), "input": list(given.samples.images.shape[1:])}
    save_model(plan.out, model, {"arch": plan.arch} | shape | {"defense": to_spec(plan.trainer), "seed": plan.seed})
    suspects, look = plan.out.with_suffix(".suspects.csv"), plan.out.with_suffix(".html")
    write_atomic(suspects, HEADER if page.ranking is None else page.ranking.csv(all_rows=False))
    write_atomic(look, render(page).encode("utf-8", "replace"))
    stages = plan.out.parent.glob(f"{glob.escape(plan.checkpoint.stem)}-*.safetensors")
    for done in (plan.checkpoint, *stages):
        done.unlink(missing_ok=True)
    measured = [f"judge: clean accuracy {each.accuracy:.1%}, attack success {each.success:.1%}" for each in page.course[-1:]]
    told = [] if page.ranking is None else [*page.notes, *rates(page.ranking), f"suspected files: {suspects}"]
    return [page.verdict, *told, *measured, f"weights: {plan.out}", f"page: {look}"]
