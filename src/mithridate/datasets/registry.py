"""Every public data set by name; a new one is one file and one line here."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

from mithridate.data import Samples
from mithridate.datasets import npz
from mithridate.datasets.cifar10 import CIFAR10
from mithridate.datasets.digits import DIGITS
from mithridate.datasets.download import fetch
from mithridate.datasets.fashion_mnist import FASHION_MNIST
from mithridate.datasets.gtsrb import GTSRB
from mithridate.datasets.mnist import MNIST
from mithridate.datasets.published import Pair, Published
from mithridate.errors import BadFile, MissingData
from mithridate.roles import Progress, silent

DATASETS: dict[str, Published] = {published.name: published for published in (DIGITS, CIFAR10, GTSRB, MNIST, FASHION_MNIST)}


def read_split(published: Published, root: Path, split: str, progress: Progress = silent) -> Samples:
    """The "train" or "test" samples of a public set: from `<root>/<name>.npz`, else its published files, else downloaded.

    Raises:
        MissingData: not there and not to be had; the text says what to put where.
        BadFile, UnsafeFile: what is there is damaged or hostile.
        ValueError: another split.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split of {published.name} must be train or test, got {split!r}")
    single = root / f"{published.name}.npz"
    if published.remotes and single.exists():
        return _named(npz.read(single, split), published, single)
    return _read_or_fetch(published, root, progress)[split == "test"]


def read_both(published: Published, root: Path, progress: Progress = silent) -> Pair:
    """Training and test samples of a public set; raises as `read_split`."""
    single = root / f"{published.name}.npz"
    if published.remotes and single.exists():
        return _named(npz.read(single, "train"), published, single), _named(npz.read(single, "test"), published, single)
    return _read_or_fetch(published, root, progress)


def unknown(name: str) -> MissingData:
    """The error for what is neither a file nor a set, with close names."""
    close = difflib.get_close_matches(name, DATASETS, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known sets: {', '.join(DATASETS)}"
    return MissingData(f"{name!r} is neither a file or folder nor a data set; {hint}")


def _read_or_fetch(published: Published, root: Path, progress: Progress) -> Pair:
    found = published.read(root)
    if found is not None:
        return found
    try:
        for remote in published.remotes:
            fetch(remote, root, progress)
    except OSError as error:
        place = published.remotes[0].url.rpartition("/")[0]
        raise MissingData(
            f"{published.name} is not in {root} and cannot be downloaded ({error}): put {published.name}.npz "
            f"(x_train, y_train, x_test, y_test), or {published.layout}, there; published at {place}"
        ) from error
    found = published.read(root)
    if found is None:
        raise MissingData(f"{published.name} is not in {root}: put {published.name}.npz, or {published.layout}, there")
    return found


def _named(samples: Samples, published: Published, path: Path) -> Samples:
    """With the names of the classes, which the arrays do not hold."""
    try:
        return replace(samples, classes=published.classes)
    except ValueError as error:
        raise BadFile(f"{path}: not {published.name} ({error})") from error
