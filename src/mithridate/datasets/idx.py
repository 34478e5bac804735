"""The IDX format of MNIST (LeCun, Cortes and Burges 1998), gzipped or raw, and the layout of four such files."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mithridate.data import Samples
from mithridate.datasets.published import Pair
from mithridate.errors import BadFile, UnsafeFile

MAX_BYTES = 2**31


def read_pair(folder: Path, classes: tuple[str, ...]) -> Pair | None:
    """Training and test samples of the four files `{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]`, or None if one is missing.

    Raises:
        BadFile, UnsafeFile: as for `read_idx`, or images and labels that do not fit together.
    """
    found = [_find(folder, f"{split}-{kind}-ubyte") for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    paths = [path for path in found if path is not None]
    if len(paths) < 4:
        return None
    return _samples(paths[0], paths[1], classes), _samples(paths[2], paths[3], classes)


def read_idx(path: Path, axes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """One array of bytes with the given number of axes.

    Raises:
        BadFile: damaged, of another kind, or longer or shorter than its header says.
        UnsafeFile: more than `MAX_BYTES`.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            zero, kind, count, *shape = struct.unpack(f">HBB{axes}I", file.read(4 + 4 * axes))
            if (zero, kind, count) != (0, 8, axes):
                raise BadFile(f"{path}: not an IDX file of bytes with {axes} axes")
            if math.prod(shape) > MAX_BYTES:
                raise UnsafeFile(f"{path}: claims shape {tuple(shape)}, more than the {MAX_BYTES:,} bytes that are allowed")
            data = file.read(math.prod(shape) + 1)
    except (OSError, EOFError, struct.error, zlib.error) as error:
        raise BadFile(f"{path}: not a readable IDX file ({error})") from error
    if len(data) != math.prod(shape):
        raise BadFile(f"{path}: claims shape {tuple(shape)}, but holds {'more' if len(data) > math.prod(shape) else 'less'}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _samples(images: Path, labels: Path, classes: tuple[str, ...]) -> Samples:
    try:
        return Samples(torch.tensor(read_idx(images, 3))[:, None], torch.tensor(read_idx(labels, 1)).long(), classes)
    except ValueError as error:
        raise BadFile(f"{images.parent}: images and labels do not fit together ({error})") from error
