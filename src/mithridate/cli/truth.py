"""Which of the images a user gives are poisoned, by the files that `mithridate infect` wrote: for the judge alone."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mithridate import infect
from mithridate.data import Samples
from mithridate.datasets.wanted import safe_names
from mithridate.errors import BadFile
from mithridate.judge import Key


def read(path: Path, samples: Samples) -> tuple[Tensor, Key]:
    """Which of `samples` are poisoned, (n,) bool, and the key to the backdoor in the order of their classes.

    Args:
        path: `truth.json`, beside which lie `truth.safetensors` and `manifest.csv`.
        samples: the set that was written with it, or a part: class folders, whose files are named by their row, or rows in order.

    Raises:
        BadFile: files that cannot be read.
        ValueError: they are about other images.
    """
    key = infect.read_key(path)
    try:
        poisoned = load_file(path.with_suffix(".safetensors"))["poisoned"]
        with path.with_name("manifest.csv").open(encoding="utf-8", newline="") as file:
            labels = [(int(row["label"]), row["class"]) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise BadFile(f"--truth {path}: the files beside it cannot be read ({' '.join(str(error).split())[:120]})") from error
    rows, theirs = _rows(samples, len(labels)), _order(labels, samples)
    own = samples.labels.tolist()
    for i, row in enumerate(rows):
        if not 0 <= row < len(labels) or theirs.get(labels[row][0]) != own[i]:
            raise ValueError(f"--truth must be about these images, got {path}, which says otherwise of {_called(samples, i)}")
    return poisoned[torch.tensor(rows)], _translated(key, theirs, len(samples.classes))


def _rows(samples: Samples, count: int) -> Sequence[int]:
    """The row of the poisoned set that each image is; files in class folders are named by it."""
    stems = [PurePosixPath(name).stem for name in samples.names if "/" in name]
    if len(stems) == len(samples) and all(stem.isdecimal() for stem in stems):
        return [int(stem) for stem in stems]
    if len(samples) != count:
        raise ValueError(f"--truth must be about these images, got one of {count:,} images for {len(samples):,}")
    return range(count)


def _order(labels: Sequence[tuple[int, str]], samples: Samples) -> dict[int, int]:
    """The infected set's labels -> the index of the same class among those of the samples."""
    names = dict(labels)
    folded = [name.casefold() for name in safe_names([names.get(i, "") for i in range(max(names) + 1)])]
    index = {name.casefold(): i for i, name in enumerate(safe_names(samples.classes))}
    return {label: index[folded[label]] for label in names if folded[label] in index}


def _translated(key: Key, theirs: dict[int, int], classes: int) -> Key:
    """The key in the order of the samples' classes; a class that they lack leads nowhere else than to itself."""
    if isinstance(key.target, int):
        target: int | tuple[int, ...] = theirs.get(key.target, key.target)
    else:
        leads = {theirs[label]: theirs.get(to, to) for label, to in enumerate(key.target) if label in theirs}
        target = tuple(leads.get(i, i) for i in range(classes))
    return replace(key, target=target, sources=tuple(theirs[each] for each in key.sources if each in theirs))


def _called(samples: Samples, i: int) -> str:
    return samples.names[i] if samples.names else f"image {i}"
