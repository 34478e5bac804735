"""What a public data set is: its classes, where it is published, and how its published files are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mithridate.data import Samples
from mithridate.datasets.download import Remote

Pair = tuple[Samples, Samples]


@dataclass(frozen=True)
class Published:
    """A public data set.

    Attributes:
        name: what it is called, and the stem of its `.npz` form.
        classes: class names, in the order of the labels.
        flips: whether a horizontal flip keeps the label.
        read: the training and test samples under a data root, or None where its published files are not there.
        remotes: the files to download.
        layout: what to put under the data root, for the error message.
    """

    name: str
    classes: tuple[str, ...]
    flips: bool
    read: Callable[[Path], Pair | None]
    remotes: tuple[Remote, ...]
    layout: str
