"""`.npz` files of images and labels, read without pickle and without trusting their headers."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from mithridate.data import Samples
from mithridate.datasets.wanted import UNLABELED
from mithridate.errors import BadFile, MissingData, UnsafeFile

Array = np.ndarray[Any, np.dtype[Any]]
MAX_BYTES = 16 * 2**30
_PLAIN = (("images", "labels"), ("x", "y"))
_KNOWN = frozenset({"x_train", "y_train", "x_test", "y_test", "images", "labels", "x", "y", "classes", "names"})


def read(path: Path, split: str | None = None) -> Samples:
    """Samples of a `.npz` file.

    Args:
        path: the file: `x_train, y_train, x_test, y_test`, or `images, labels`, or `x, y`; labels may be missing (all 0), and
            `classes` and, beside `images` or `x`, `names` (text) may be there. Images are (n, h, w, c), (n, c, h, w) or (n, h, w),
            uint8 or floats in [0, 1]; where both orders fit, channels last is meant.
        split: "train" or "test"; None takes the plain arrays, else the test images, else the training images.

    Raises:
        MissingData: no file, or not the split asked for.
        BadFile: not a `.npz` file, damaged, pickled, or without any of those arrays.
        UnsafeFile: larger than `MAX_BYTES`, or a header that lies.
        ValueError: an array of the wrong type, shape or range, by name.
    """
    if not path.exists():
        raise MissingData(f"{path} does not exist")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {e.filename.removesuffix(".npy"): e for e in archive.infolist() if e.filename.removesuffix(".npy") in _KNOWN}
            x, y = _keys(path, entries, split)
            wanted = [key for key in (x, y, "classes", *(("names",) if x in ("images", "x") else ())) if key in entries]
            _check_total(path, [entries[key] for key in wanted])
            arrays = {key: _array(archive, entries[key], f"{path}: {key}") for key in wanted}
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise BadFile(f"{path}: not a readable .npz file ({error})") from error
    return _samples(arrays, x, y, str(path))


def splits(path: Path) -> bool:
    """Whether a `.npz` file holds training and test images.

    Raises:
        BadFile: not a `.npz` file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {"x_train.npy", "x_test.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise BadFile(f"{path}: not a readable .npz file ({error})") from error


def _keys(path: Path, entries: Mapping[str, object], split: str | None) -> tuple[str, str]:
    """Names of the image and the label array."""
    named = [(f"x_{s}", f"y_{s}") for s in ("test", "train")]
    choices = [*_PLAIN, *named] if split is None else [(f"x_{split}", f"y_{split}")]
    for x, y in choices:
        if x in entries:
            return x, y
    if split is not None and any(x in entries for x, _ in [*_PLAIN, *named]):
        raise MissingData(f"{path} has no {split!r} images (x_{split}); it has {', '.join(sorted(entries))}")
    raise BadFile(f"{path}: no images in it; it needs x_train, y_train, x_test, y_test, or images, labels, or x, y")


def _check_total(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    total = sum(entry.file_size for entry in entries)
    if total > MAX_BYTES:
        raise UnsafeFile(f"{path}: unpacks to {total:,} bytes, more than the {MAX_BYTES:,} that are allowed")


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, where: str) -> Array:
    """One array, after its header has been held against the size of the entry."""
    with archive.open(entry) as file:
        shape, dtype = _header(file, where)
        body = entry.file_size - file.tell()
        if dtype.hasobject:
            raise BadFile(f"{where} holds pickled objects, which are never loaded")
        if math.prod(shape) * dtype.itemsize != body:
            raise UnsafeFile(f"{where} claims shape {shape} of {dtype}, but holds {body:,} bytes")
        file.seek(0)
        try:
            return np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, MemoryError) as error:
            raise BadFile(f"{where} cannot be read ({error})") from error


def _header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(file)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise BadFile(f"{where} has no readable header ({str(error).partition(chr(10))[0]})") from error
    return shape, dtype


def _samples(arrays: Mapping[str, Array], x: str, y: str, where: str) -> Samples:
    images = _images(arrays[x], f"{where}: {x}")
    if y in arrays:
        labels = _labels(arrays[y], len(images), f"{where}: {y}")
        classes = _texts(arrays.get("classes"))
    else:
        labels, classes = torch.zeros(len(images), dtype=torch.int64), (UNLABELED,)
    try:
        return Samples(images, labels, classes, _texts(arrays.get("names")))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _images(array: Array, where: str) -> Tensor:
    """(n, c, h, w), uint8 or float32."""
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise ValueError(f"{where} must be uint8 or floats in [0, 1], got {array.dtype}")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    elif array.ndim != 4 or array.shape[1] not in (1, 3):
        raise ValueError(f"{where} must have shape (n, h, w), (n, h, w, c) or (n, c, h, w) with 1 or 3 channels, got {array.shape}")
    return torch.from_numpy(np.ascontiguousarray(array, np.uint8 if array.dtype == np.uint8 else np.float32))


def _labels(array: Array, count: int, where: str) -> Tensor:
    if array.dtype.kind not in "iu" or array.size != count or max(array.shape, default=0) != count:
        raise ValueError(f"{where} must be {count} integers, got {array.dtype} of shape {array.shape}")
    return torch.from_numpy(array.reshape(-1).astype(np.int64))


def _texts(array: Array | None) -> tuple[str, ...]:
    return () if array is None else tuple(map(str, array.reshape(-1).tolist()))
