"""Image sets of the Hugging Face hub, through its `datasets` package (an extra)."""

from __future__ import annotations

import importlib
import io
from typing import Any

import numpy as np
import torch

from mithridate.data import Samples
from mithridate.datasets.pixels import decode
from mithridate.datasets.wanted import UNLABELED, Wanted, conform, take
from mithridate.errors import BadFile, MissingData, MissingExtra


def read(name: str, split: str, wanted: Wanted) -> Samples:
    """One split of a hub data set: its image column, and its class column where it has one.

    Args:
        name: the hub's name, as in `uoft-cs/cifar10`; code that comes with a set is never run.
        split: as the set calls it.
        wanted: size, channels, classes and limit.

    Raises:
        MissingExtra: `datasets` is not installed.
        MissingData: no such set, or no network.
        BadFile: no image column, or a damaged image.
        ValueError: sizes differ and none is wanted, or the classes do not fit.
    """
    try:
        hub: Any = importlib.import_module("datasets")
    except ImportError as error:
        raise MissingExtra("datasets", "hub") from error
    try:
        rows = hub.load_dataset(name, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise MissingData(f"hub data set {name!r}, split {split!r}, cannot be loaded ({reason}); it needs the network once") from error
    return _samples(hub, rows, f"hf:{name}", wanted)


def _samples(hub: Any, rows: Any, where: str, wanted: Wanted) -> Samples:
    column = next((key for key, kind in rows.features.items() if isinstance(kind, hub.Image)), None)
    if column is None:
        raise BadFile(f"{where}: no image column among {', '.join(rows.features)}")
    named = next((key for key, kind in rows.features.items() if isinstance(kind, hub.ClassLabel)), None)
    classes = (UNLABELED,) if named is None else tuple(rows.features[named].names)
    labels = torch.zeros(len(rows), dtype=torch.int64) if named is None else torch.tensor(rows[named][:])
    keep = take(labels, wanted.limit, wanted.seed)
    chosen = rows.cast_column(column, hub.Image(decode=False)).select(keep.tolist())
    arrays = [_pixels(cell, f"{where}/{i}", wanted) for i, cell in zip(keep.tolist(), chosen[column], strict=True)]
    if len({array.shape for array in arrays}) > 1:
        raise ValueError(f"size and channels must be given: {where} holds images of several shapes")
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    samples = Samples(images, labels[keep], classes, tuple(f"{where}/{i}" for i in keep.tolist()))
    return conform(samples, Wanted(classes=wanted.classes), where)


def _pixels(cell: Any, name: str, wanted: Wanted) -> np.ndarray[Any, np.dtype[np.uint8]]:
    data = cell["bytes"]
    if data is None:
        with io.FileIO(cell["path"]) as file:
            data = file.read()
    return decode(data, name, wanted.size, wanted.channels)
