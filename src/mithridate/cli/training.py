"""Training images from the command line: whatever a user has, in the form a model can be trained on, and what is odd about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from mithridate import __version__
from mithridate.analysis.outliers_1d import suspicious
from mithridate.cli.flags import method
from mithridate.data import Samples
from mithridate.datasets import DATASETS
from mithridate.datasets.sources import parse, read
from mithridate.datasets.survey import remarks
from mithridate.datasets.wanted import Wanted
from mithridate.errors import MissingExtra
from mithridate.files import write_atomic
from mithridate.judge import Key
from mithridate.report.ranking import Ranking
from mithridate.roles import Progress, Role

ARCHITECTURE = "wrn_16_1"
ALONE = "(no other class)"  # a classifier needs two
SMALL, LARGE = 32, 96  # sides in pixels: of what the built-in networks are made for, and of what they take long for


@dataclass(frozen=True, eq=False)
class Given:
    """What the user gave.

    Attributes:
        samples: of square images, with two classes at least.
        name: what pages call it.
        remarks: what is odd about it, in sentences.
    """

    samples: Samples
    name: str
    remarks: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """What a person is told before anything is learned."""
        classes = len(self.samples.labels.unique())
        counted = f"{len(self.samples):,} images of {classes:,} {'class' if classes == 1 else 'classes'}"
        return [counted, *(f"note: {remark}" for remark in self.remarks)]

    @property
    def shape(self) -> dict[str, int]:
        """What a model must fit."""
        return {"classes": len(self.samples.classes), "channels": self.samples.images.shape[1], "size": self.samples.images.shape[-1]}


def given(source: str, wanted: Wanted, root: Path | None, progress: Progress) -> Given:
    """The training part of a source, as in `cifar10`, `photos/`, `photos.zip:2000` or `set.npz`; unreadable images are left out.

    Raises:
        MithridateError, ValueError: nothing can be read, or sizes that differ or are not square where none is wanted.
    """
    damaged: list[str] = []
    samples = read(source, replace(wanted, damaged=damaged.append), root=root, part="train", progress=progress)
    height, width = samples.images.shape[2:]
    if not len(samples):
        raise ValueError(f"images must hold at least one image, got none in {source}")
    if height != width:
        raise ValueError(f"size must be given: {source} holds images of {width}x{height}, and models take square ones")
    odd = remarks(samples, damaged)
    if wanted.size is None and width >= LARGE:
        times = (width / SMALL) ** 2
        odd += (f"images of {width}x{width} take {times:.0f} times as long as of {SMALL}x{SMALL}: --size {SMALL} makes them small",)
    if len(samples.classes) == 1:
        samples = replace(samples, classes=(*samples.classes, ALONE))
    place = parse(source)[0]
    return Given(samples, "/".join(Path(place).parts[-2:]), odd)


def form(size: int | None, seed: int, card: dict[str, Any] | None = None) -> Wanted:
    """The form to read images in: of the given size, else as a model's card says.

    Raises:
        ValueError: a size below 1.
    """
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    channels, height, width = (card or {}).get("input", (None, size, size))
    names = (card or {}).get("classes")
    shape = None if height is None else (height, width)
    return Wanted(size=shape, channels=channels, classes=tuple(names) if isinstance(names, (list, tuple)) else None, seed=seed)


def configured(role: Role, text: str, source: str, epochs: int | None, flags: Sequence[str]) -> Any:
    """The method that a specification and its dotted flags describe.

    Unless they say otherwise, one that trains mirrors images, but not those of public sets that do not bear it.

    Raises:
        BadSpec: an unknown name, field or value.
        ValueError: epochs for a method that knows none.
    """
    place = parse(source)[0]
    chosen = method(role, text, flags, {"flip": place not in DATASETS or DATASETS[place].flips})
    if epochs is None:
        return chosen
    if "epochs" not in {each.name for each in fields(chosen)}:
        raise ValueError(f"epochs is no field of {text}, got {epochs}")
    return replace(chosen, epochs=epochs)


def ranked(scores: Tensor, samples: Samples, told: tuple[Tensor, Key] | None, flagged: Tensor | None = None) -> Ranking:
    """A ranking by scores; without flags of its own, those of each class that form a population apart are flagged."""
    scores = scores.cpu()
    if flagged is None:
        flagged = suspicious(scores - scores.min(), samples.labels.cpu())
    return Ranking(samples=samples, scores=scores, flagged=flagged, poisoned=None if told is None else told[0])


def rates(ranking: Ranking) -> list[str]:
    """What the judge says, in a line; nothing where the truth is not known."""
    judged = ranking.judged
    if judged is None:
        return []
    precision = "nothing flagged" if judged.precision is None else f"precision {judged.precision}"
    return [f"judge: {precision}, recall {judged.recall}, AUROC {judged.auroc:.3f}, precision at 1% {judged.top.value:.1%}"]


def parquet(ranking: Ranking, path: Path) -> list[str]:
    """Write the ranking as Parquet where pyarrow is there to do it, and say so."""
    try:
        write_atomic(path, ranking.parquet())
    except MissingExtra:
        return []
    return [str(path)]


def settings(images: Given, seed: int) -> dict[str, str]:
    """What the page says of the images and the run."""
    channels, height, width = images.samples.images.shape[1:]
    shape = f"{len(images.samples):,} of {width}x{height} with {'one channel' if channels == 1 else f'{channels} channels'}"
    return {"images": shape, "classes": f"{len(images.samples.labels.unique()):,}", "seed": str(seed), "version": __version__}
