"""Sets larger than memory: pixels lie in a file and are paged in as they are read."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from mithridate.data import Samples
from mithridate.errors import BadFile
from mithridate.files import write_atomic

_VERSION = 1


def write_memmap(parts: Iterable[Samples], folder: Path) -> None:
    """Write consecutive parts of a set as `images.npy`, `labels.npy` and `meta.json`; the folder appears only when all is written.

    Args:
        parts: samples of one image shape, uint8, with the same classes; only one part is in memory at a time.
        folder: where to; if it is there already, or another process finishes it first, that one stays.

    Raises:
        ValueError: no images, images that are not uint8, or of differing shapes or classes.
    """
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir(parents=True)
    try:
        with (temporary / "images.npy").open("wb") as file:
            meta, labels = _append(file, parts)
            file.flush()
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):  # out of the cache, from which whole megabytes would be mapped around each image read
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        np.save(temporary / "labels.npy", labels, allow_pickle=False)
        write_atomic(temporary / "meta.json", json.dumps(meta).encode())
        if not folder.exists():
            temporary.replace(folder)
    except OSError:
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def open_memmap(folder: Path) -> Samples:
    """The set that `write_memmap` wrote, without reading its pixels. Writing into its images changes memory only, never the file.

    Raises:
        BadFile: not such a folder, or its files do not fit together.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text("utf-8"))
        if meta["version"] != _VERSION:
            raise BadFile(f"{folder}: memory map of version {meta['version']}, expected {_VERSION}")
        # Copy-on-write: torch warns about read-only arrays, and so the file is still safe.
        images = np.load(folder / "images.npy", mmap_mode="c", allow_pickle=False)
        labels = np.load(folder / "labels.npy", allow_pickle=False)
        if images.dtype != np.uint8:
            raise BadFile(f"{folder}: images.npy must be uint8, got {images.dtype}")
        return Samples(torch.from_numpy(images), torch.from_numpy(labels), tuple(meta["classes"]), tuple(meta["names"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFile(f"{folder}: not a memory map of samples ({error})") from error


def _append(file: BinaryIO, parts: Iterable[Samples]) -> tuple[dict[str, Any], np.ndarray[Any, np.dtype[np.int64]]]:
    """Write the pixels one part after the other, then the header, whose length does not depend on the count."""
    labels: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    names: list[str] = []
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    for part in parts:
        if not labels:
            shape, classes = tuple(part.images.shape[1:]), part.classes
            _header(file, (0, *shape))
        _check(part, shape, classes)
        file.write(part.images.contiguous().numpy().data)
        labels.append(part.labels.numpy())
        names.extend(part.names)
    if not labels:
        raise ValueError("parts must hold at least one image, got none")
    file.seek(0)
    _header(file, (sum(map(len, labels)), *shape))
    return {"version": _VERSION, "classes": classes, "names": names}, np.concatenate(labels)


def _check(part: Samples, shape: tuple[int, ...], classes: tuple[str, ...]) -> None:
    if part.images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8, got {part.images.dtype}")
    if tuple(part.images.shape[1:]) != shape or part.classes != classes:
        raise ValueError(f"parts must all be of shape {shape} and the same classes, got {tuple(part.images.shape[1:])}, {part.classes}")


def _header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)  # pads for growth of the first axis
