"""Images from whatever the user names: a data set, a folder, a zip, a `.npz` file or a hub set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mithridate.data import Samples
from mithridate.datasets import folder, hub, npz
from mithridate.datasets.listing import listed
from mithridate.datasets.published import Pair
from mithridate.datasets.registry import DATASETS, read_both, read_split, unknown
from mithridate.datasets.root import data_root
from mithridate.datasets.wanted import Wanted, conform, take
from mithridate.roles import Progress, silent

_HUB = "hf:"


@dataclass(frozen=True)
class Dataset:
    """A set to train and test on.

    Attributes:
        name: what it is called.
        train: training samples.
        test: test samples, with the same classes.
        flips: whether a horizontal flip keeps the label.
    """

    name: str
    train: Samples
    test: Samples
    flips: bool


def load(
    name_or_path: str | Path,
    *,
    root: Path | None = None,
    size: tuple[int, int] | None = None,
    flips: bool | None = None,
    progress: Progress = silent,
) -> Dataset:
    """A data set, whole.

    Args:
        name_or_path: a name of `DATASETS`, a folder or .zip of class folders (with or without `train/` and `test/` around them),
            a `.npz` file, or `hf:NAME`. Where there is no test part, a fifth of each class becomes one, always the same.
        root: where public sets lie; default `MITHRIDATE_DATA`, else the user's cache, to which a missing set is downloaded.
        size: (height, width) to resize to; needed for folders of differing sizes.
        flips: whether horizontal flips keep the label; None takes what is known of a public set, and yes for others.
        progress: called while files are downloaded or read.

    Raises:
        MissingData: it is not there; the text says what to put where.
        MissingExtra: a hub set without the extra.
        BadFile, UnsafeFile: damaged or hostile files.
        ValueError: sizes that differ, or arrays of the wrong type, shape or range.
    """
    text = str(name_or_path)
    wanted = Wanted(size=size)
    if text in DATASETS:
        train, test = (conform(part, wanted, text) for part in read_both(DATASETS[text], data_root(root), progress))
    else:
        train, test = _pair(text, wanted, progress)
    name = text if text in DATASETS else text.removeprefix(_HUB).rstrip("/\\").replace("\\", "/").rpartition("/")[2].partition(".")[0]
    known = DATASETS[name].flips if name in DATASETS else True
    return Dataset(name, train, test, known if flips is None else flips)


def images(
    source: str | Path,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    classes: Sequence[str] | None = None,
    root: Path | None = None,
    seed: int = 0,
) -> Samples:
    """Images in the form a model takes them.

    Args:
        source: `PLACE[:SPLIT][:LIMIT]`, as in `cifar10:test:1000`, `photos/`, `photos.zip:200`, `set.npz:train`, `cat.png`,
            `hf:NAME:test`. Without a split: the test part where there is one. The limit draws at random, balanced over the classes.
            Images outside of class folders are labeled 0 and named by their file.
        size: (height, width) to resize to, bilinear and antialiased.
        channels: 1 or 3, to convert to.
        classes: the model's class names; folder names are matched to them by name or number.
        root: where public sets lie, as in `load`.
        seed: of the limit's draw.

    Raises:
        As `load`; also ValueError for a class folder that the model does not know and a limit above what there is.
    """
    wanted = Wanted(size=size, channels=channels, classes=None if classes is None else tuple(classes), seed=seed)
    return read(str(source), wanted, root=root)


def read(source: str, wanted: Wanted, *, root: Path | None = None, part: str = "test", progress: Progress = silent) -> Samples:
    """As `images`, with the form as one argument, the part to take where there are two and none is named, and progress."""
    place, split, limit = parse(source)
    wanted = wanted if limit is None else replace(wanted, limit=limit)
    path = Path(place)
    if place in DATASETS:
        return conform(read_split(DATASETS[place], data_root(root), split or part, progress), wanted, place)
    if place.startswith(_HUB):
        return hub.read(place.removeprefix(_HUB), split or part, wanted)
    if not path.exists():
        raise unknown(place)
    if path.suffix.lower() == ".npz":
        return conform(npz.read(path, split or (part if npz.splits(path) else None)), wanted, place)
    with listed(path) as listing:
        inner = listing if path.is_dir() else folder.unwrapped(listing, (*(wanted.classes or ()), "train", "test"))
        return folder.read(folder.split_of(inner, split, part), wanted, progress)


def parse(source: str) -> tuple[str, str | None, int | None]:
    """Place, split and limit of `PLACE[:SPLIT][:LIMIT]`; a path that exists as it is written is all place.

    Raises:
        ValueError: an empty place.
    """
    rest, split, limit = source, None, None
    if not Path(source).exists():
        head, colon, tail = rest.rpartition(":")
        if colon and tail.isdecimal():
            rest, limit = head, int(tail)
            head, colon, tail = rest.rpartition(":")
        if colon and tail in ("train", "test", "validation"):
            rest, split = head, tail
    if not rest:
        raise ValueError(f"source must name a data set, folder or file, got {source!r}")
    return rest, split, limit


def _pair(text: str, wanted: Wanted, progress: Progress) -> Pair:
    """Training and test samples of what is no public set."""
    path = Path(text)
    if text.startswith(_HUB):
        train, test = (hub.read(text.removeprefix(_HUB), split, wanted) for split in ("train", "test"))
        return train, test
    if not path.exists():
        raise unknown(text)
    if path.suffix.lower() == ".npz":
        return _npz_pair(path, wanted)
    with listed(path) as listing:
        inner = listing if path.is_dir() else folder.unwrapped(listing, ("train", "test"))
        parts = folder.halves(inner)
        wanted = replace(wanted, classes=folder.class_names(parts[0]))
        train, test = (folder.read(part, wanted, progress) for part in parts)
        return train, test


def _npz_pair(path: Path, wanted: Wanted) -> Pair:
    if npz.splits(path):
        train, test = (conform(npz.read(path, split), wanted, str(path)) for split in ("train", "test"))
        classes = max(train.classes, test.classes, key=len)
        return replace(train, classes=classes), replace(test, classes=classes)
    whole = conform(npz.read(path), wanted, str(path))
    chosen = torch.zeros(len(whole), dtype=torch.bool)
    chosen[take(whole.labels, len(whole) // 5, seed=0)] = True
    return whole[~chosen], whole[chosen]
