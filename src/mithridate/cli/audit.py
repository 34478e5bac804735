"""`mithridate audit`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from mithridate.audit import Outcome, Settings, Subject
    from mithridate.roles import Progress

Text = Optional[str]  # noqa: UP045 - typer reads annotations at run time


def audit(
    context: typer.Context,
    model: Annotated[Text, typer.Argument(help="Weights file, timm:NAME, hub id, or file.py:callable.")] = None,
    clean: Annotated[Text, typer.Option(help="Images you vouch for: class folders, a zip, an .npz, or cifar10:test:1000.")] = None,
    suspect: Annotated[Text, typer.Option(help="Inputs to judge.")] = None,
    train: Annotated[Text, typer.Option(help="The images the model was trained on.")] = None,
    arch: Annotated[Text, typer.Option(help="Architecture of a weights file that has no card beside it.")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Audit a victim made on the spot from scikit-learn's digits.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the report, the repaired weights and the guard.")] = Path("mithridate-audit"),
    fpr: Annotated[float, typer.Option(help="Share of clean inputs that may be refused.")] = 0.01,
    attack: Annotated[Optional[list[str]], typer.Option(help="Evasion that measures robustness, such as pgd:eps=0.03; repeatable.")] = None,  # noqa: UP045
    detector: Annotated[Optional[list[str]], typer.Option(help="What judges the suspect inputs; repeatable.")] = None,  # noqa: UP045
    inspector: Annotated[Optional[list[str]], typer.Option(help="What judges the model; the first decides; repeatable.")] = None,  # noqa: UP045
    repair: Annotated[Text, typer.Option(help="What repairs the model.")] = None,
    screen: Annotated[Text, typer.Option(help="What ranks the training images.")] = None,
    minutes: Annotated[Optional[float], typer.Option(help="Time budget; without one, everything is tried.")] = None,  # noqa: UP045
    seconds: Annotated[Optional[float], typer.Option(help="Time budget in seconds.")] = None,  # noqa: UP045
    size: Annotated[Optional[int], typer.Option(help="Side of the model's input in pixels, if nothing else says it.")] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    data: Annotated[Optional[Path], typer.Option(help="Data root; else MITHRIDATE_DATA, else the user cache.")] = None,  # noqa: UP045
    twin: Annotated[bool, typer.Option("--clean-twin", help="With --demo: audit the clean twin of the victim.")] = False,
    truth: Annotated[Optional[Path], typer.Option(help="truth.json of a victim, for the judge's section only.")] = None,  # noqa: UP045
    judge_on: Annotated[Text, typer.Option(help="With --truth: images to judge on; those of --clean are left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json on stdout as well.")] = False,
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> int:
    """Say whether to trust a model, and hand back a repaired one.

    Exits with 0 when nothing was found, 1 when the model is infected or malicious inputs were found, 2 when it could not run.
    """
    if demo == (model is not None):
        raise ValueError("MODEL must be given, or --demo, but not both" if demo else "MODEL must be given, or --demo, got neither")
    if not demo and clean is None:
        raise ValueError("--clean must name images you vouch for, got none")
    if twin and not demo:
        raise ValueError("--clean-twin needs --demo")
    if (truth is None) != (judge_on is None):
        raise ValueError("--truth and --judge-on must be given together")
    from mithridate.cli.bars import bars, say
    from mithridate.files import claim

    chosen = _settings(
        context.obj,
        {"fpr": fpr, "seed": seed, "seconds": _budget(minutes, seconds)},
        {"evasion": attack, "detector": detector, "inspector": inspector, "repair": repair, "screen": screen},
    )
    with bars(quiet) as progress:
        if demo:
            claim(out)  # now, not after minutes of work
            outcome, card = _demo(not twin, chosen, progress)
        else:
            from mithridate.cli.subject import read

            subject, card = read(str(model), str(clean), suspect, train, arch=arch, size=size, root=data, seed=seed)
            told = None if truth is None else (truth, str(judge_on), subject.clean, data, seed)
            claim(out)
            outcome = _audit(subject, chosen, told, progress)
    from mithridate.audit import write

    write(outcome, out, card)
    if as_json:
        typer.echo(outcome.report.model_dump_json(indent=2))
    say(*_lines(outcome), f"report: {out / 'report.html'}")
    found = outcome.report.infected or (outcome.report.flagged is not None and outcome.report.flagged.malicious_found)
    return int(found)


def _budget(minutes: float | None, seconds: float | None) -> float | None:
    if minutes is not None and seconds is not None:
        raise ValueError(f"--minutes or --seconds may be given, not both, got {minutes:g} and {seconds:g}")
    return seconds if minutes is None else 60 * minutes


def _settings(flags: list[str], plain: dict[str, Any], named: dict[str, Any]) -> Settings:
    """The settings that the options spell; dotted flags such as `--detector.bandwidth 0.5` go to the methods of that role."""
    from mithridate.audit import Settings
    from mithridate.cli.flags import check, several

    fields = {"evasion": "evasions", "detector": "detectors", "inspector": "inspectors", "repair": "repair", "screen": "screen"}
    check(flags, tuple(fields))
    values = dict(plain)
    defaults = Settings()
    for role, field in fields.items():
        given = named[role] or getattr(defaults, field)
        specs = several(role, (given,) if isinstance(given, str) else given, flags)  # type: ignore[arg-type]  # a key is a role
        values[field] = specs[0] if isinstance(given, str) else specs
    return Settings(**values)


def _demo(infected: bool, settings: Settings, progress: Progress) -> tuple[Outcome, dict[str, Any]]:
    from mithridate.audit import audit as run
    from mithridate.audit import demo

    made = demo.make(infected=infected, seed=settings.seed, progress=progress)
    card = {"arch": "lenet", "classes": list(made.subject.clean.classes), "input": list(made.subject.clean.images.shape[1:])}
    return run(made.subject, settings, key=made.key, fresh=made.fresh, progress=progress), card


def _audit(subject: Subject, settings: Settings, told: Any, progress: Progress) -> Outcome:
    from mithridate.audit import audit as run
    from mithridate.cli import key

    answer, fresh = (None, None) if told is None else key.read(*told)
    return run(subject, settings, key=answer, fresh=fresh, progress=progress)


def _lines(outcome: Outcome) -> list[str]:
    """The report in a few lines for the terminal."""
    report = outcome.report
    lines = [report.verdict, f"clean accuracy {report.clean_accuracy:.1%} on {report.clean_images:,} images"]
    lines += [f"under {r.attack}: {r.accuracy:.1%} on {r.count:,} images" for r in report.robust_accuracy]
    if report.training is not None:
        lines.append(f"{report.training.count:,} of {report.training.of:,} training images look poisoned")
    if report.repair is not None:
        before, after = report.repair.clean_accuracy_before, report.repair.clean_accuracy_after
        lines.append(f"repaired by {report.repair.method}: clean accuracy {before:.1%} -> {after:.1%} on held-out images")
    if report.truth is not None:
        target = "a class for each class" if report.truth.target is None else report.classes[report.truth.target]
        lines.append(f"truth (the defenses never saw it): target {target}, attack success")
        lines[-1] += f" {report.truth.asr_before:.1%} -> {report.truth.asr_after:.1%} after repair"
    return [*lines, *(f"note: {what}" for what in report.skipped)]
