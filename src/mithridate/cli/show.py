"""`mithridate show`: what an attack does to images, as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:  # so that --help stays fast
    from mithridate.report.contact import Part
    from mithridate.roles import Craft, Progress, Trigger


def show(
    context: typer.Context,
    trigger: Annotated[Optional[str], typer.Option(help="Trigger such as badnets:size=5; --trigger.size 5 sets a field.")] = None,  # noqa: UP045
    victim: Annotated[Optional[Path], typer.Option(help="Folder of mithridate infect: its trigger, and the victim's answers.")] = None,  # noqa: UP045
    attack: Annotated[Optional[str], typer.Option(help="Evasion such as pgd:eps=0.03, against --model.")] = None,  # noqa: UP045
    model: Annotated[Optional[str], typer.Option(help="Model to evade, as in mithridate audit MODEL.")] = None,  # noqa: UP045
    arch: Annotated[Optional[str], typer.Option(help="Architecture of its weights, unless its card says it.")] = None,  # noqa: UP045
    dataset: Annotated[Optional[str], typer.Option(help="A set, folder, .npz file or picture. [default: the victim's, or digits]")] = None,  # noqa: UP045
    count: Annotated[int, typer.Option(help="Images beside each other.")] = 8,
    target: Annotated[Optional[int], typer.Option(help="Class to reach. [default: 0; of an evasion, any wrong one]")] = None,  # noqa: UP045
    images: Annotated[int, typer.Option(help="At most so many training images to craft a trigger from, where it needs any.")] = 2000,
    size: Annotated[Optional[int], typer.Option(help="Side in pixels that images are resized to; needed where they differ.")] = None,  # noqa: UP045
    out: Annotated[Path, typer.Option(help="Picture to write.")] = Path("trigger.png"),
    seed: Annotated[int, typer.Option(help="Seed of the choice of images, and of the attack.")] = 0,
    data: Annotated[Optional[Path], typer.Option(help="Data root; else MITHRIDATE_DATA, else the user cache.")] = None,  # noqa: UP045
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Draw a trigger, a victim's trigger or an evasion on real images: clean, changed, and the difference, amplified."""
    from mithridate.cli.bars import bars, say
    from mithridate.cli.flags import check
    from mithridate.files import claim_file

    check(context.obj, ("trigger", "evasion"))
    if sum(given is not None for given in (trigger, victim, attack)) != 1:
        raise ValueError("show needs one of --trigger, --victim and --attack")
    if attack is None and (model, arch) != (None, None):
        raise ValueError("--model and --arch go with --attack; a victim brings its own model")
    for name, number in (("count", count), ("images", images), ("size", 1 if size is None else size)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    claim_file(out, ".png")  # now, not after a trigger was crafted
    wish = _Wish(dataset=dataset, count=count, target=target, images=images, size=size, seed=seed, root=data)
    with bars(quiet) as progress:
        if trigger is not None:
            title, parts = _trigger(trigger, context.obj, wish, progress)
        elif victim is not None:
            title, parts = _victim(victim, wish)
        else:
            title, parts = _evasion(str(attack), context.obj, wish, model, arch)
    say(title, *_write(out, title, parts), f"written to {out}")


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """What the user wants to see it on."""

    dataset: str | None
    count: int
    target: int | None
    images: int
    size: int | None
    seed: int
    root: Path | None

    @property
    def source(self) -> str:
        return self.dataset or "digits"

    @property
    def place(self) -> str:
        """The data set's name, or the last part of its path."""
        return self.source.rstrip("/\\").replace("\\", "/").rpartition("/")[2]

    @property
    def square(self) -> tuple[int, int] | None:
        return None if self.size is None else (self.size, self.size)


def _trigger(text: str, flags: Sequence[str], wish: _Wish, progress: Progress) -> tuple[str, tuple[Part, ...]]:
    from mithridate import datasets, methods
    from mithridate.cli.flags import method
    from mithridate.report import exhibits
    from mithridate.spec import to_spec
    from mithridate.threats.dose import Dose

    name = text.partition(":")[0]
    if methods.find(name, role="planter"):
        raise ValueError(f"{name} makes its trigger while it trains: mithridate infect --planter {name} --out DIR, then show --victim DIR")
    chosen = method("trigger", text, flags)
    dose = Dose(target=wish.target or 0).of(chosen)
    samples = datasets.images(wish.source, size=wish.square, root=wish.root, seed=wish.seed)
    dose.check(len(samples.classes))
    made = _made(chosen, dose.target, wish, progress)
    options: dict[str, Any] = {"count": wish.count, "seed": wish.seed}
    parts = (*exhibits.sent(made, samples, dose, **options), *exhibits.trained(made, samples, dose, **options))
    return f"{to_spec(chosen)} on {wish.place}", parts


def _made(trigger: Trigger | Craft, target: object, wish: _Wish, progress: Progress) -> Trigger:
    """The trigger, crafted from training images if it has to be."""
    from mithridate import datasets
    from mithridate.datasets.sources import parse
    from mithridate.datasets.wanted import take
    from mithridate.roles import Craft
    from mithridate.threats.poison import ready

    if not isinstance(trigger, Craft):
        return trigger
    train = datasets.load(parse(wish.source)[0], root=wish.root, size=wish.square, progress=progress).train
    train = train[take(train.labels, min(wish.images, len(train)), wish.seed)]
    return ready(trigger, train, target, seed=wish.seed, progress=progress)


def _victim(folder: Path, wish: _Wish) -> tuple[str, tuple[Part, ...]]:
    from mithridate import datasets
    from mithridate.infect import read_key
    from mithridate.nn.resolve import resolve
    from mithridate.report import exhibits
    from mithridate.threats.dose import Dose

    if not (folder / "truth.json").is_file():
        raise ValueError(f"{folder} holds no truth.json: it is not of mithridate infect, or its model is clean")
    key = read_key(folder / "truth.json")
    if wish.target is not None:
        raise ValueError(f"target must be left out with --victim, which was made for {key.target}, got {wish.target}")
    found = resolve(str(folder / "model.safetensors"))
    channels, height, width = found.card["input"]
    named = found.card["classes"] if isinstance(found.card["classes"], list) else None
    source = wish.dataset or _learned(folder)
    samples = datasets.images(source, channels=channels, size=(height, width), classes=named, root=wish.root, seed=wish.seed)
    dose = Dose(target=key.target, sources=key.sources)
    parts = exhibits.sent(key.trigger, samples, dose, count=wish.count, seed=wish.seed, model=found.model)
    return f"{key.spec} in {folder.name}, on {Path(source).name}", parts


def _learned(folder: Path) -> str:
    """The public set that a victim was trained on."""
    from mithridate.card import Card
    from mithridate.datasets import DATASETS

    name = Card.read(folder / "card.json").config.get("dataset") if (folder / "card.json").is_file() else None
    if name not in DATASETS:
        raise ValueError(f"{folder} was not trained on a public set: --dataset must say which images to show it on")
    return str(name)


def _evasion(text: str, flags: Sequence[str], wish: _Wish, model: str | None, arch: str | None) -> tuple[str, tuple[Part, ...]]:
    from mithridate.cli.flags import method
    from mithridate.cli.subject import read
    from mithridate.report import exhibits
    from mithridate.spec import to_spec

    if model is None:
        raise ValueError("--attack needs a --model to evade")
    chosen = method("evasion", text, flags)
    subject, _ = read(model, wish.source, None, None, arch=arch, size=wish.size, root=wish.root, seed=wish.seed)
    parts = exhibits.adversarial(chosen, subject.model, subject.clean, target=wish.target, count=wish.count, seed=wish.seed)
    return f"{to_spec(chosen)} against {Path(model).name}, on {wish.place}", parts


def _write(out: Path, title: str, parts: Sequence[Part]) -> list[str]:
    """Write the picture; what it shows, a line each."""
    from mithridate.files import write_atomic
    from mithridate.report.contact import measure, sheet

    picture = io.BytesIO()
    sheet(parts, title).save(picture, "PNG", optimize=True)
    write_atomic(out, picture.getvalue())
    return [measure(part) for part in parts]
