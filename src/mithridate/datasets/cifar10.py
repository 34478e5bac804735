"""CIFAR-10: 60,000 RGB 32x32 images (Krizhevsky 2009), published as pickles, which are read here without running any."""

from __future__ import annotations

import io
import pickle
import pickletools
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mithridate.data import Samples
from mithridate.datasets.download import Remote
from mithridate.datasets.published import Pair, Published
from mithridate.errors import BadFile, UnsafeFile

MAX_BYTES = 256 * 2**20
_FOLDER = "cifar-10-batches-py"
_ARCHIVE = "cifar-10-python.tar.gz"
_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
_PIXELS = 3 * 32 * 32


def read(root: Path) -> Pair | None:
    """50,000 training and 10,000 test images (n, 3, 32, 32), uint8, from `cifar-10-batches-py/` or `cifar-10-python.tar.gz`.

    Raises:
        BadFile: a damaged batch or archive.
        UnsafeFile: a batch that asks for more than arrays, lists and numbers, which is refused without running it.
    """
    folder, archive = root / _FOLDER, root / _ARCHIVE
    if all((folder / name).is_file() for name in (*_TRAIN, "test_batch")):
        return _samples(lambda name: _bytes(folder / name), str(folder))
    if not archive.is_file():
        return None
    try:
        with tarfile.open(archive) as tar:  # read in place: nothing is unpacked to disk
            return _samples(lambda name: _member(tar, f"{_FOLDER}/{name}"), str(archive))
    except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        raise BadFile(f"{archive}: not a readable archive ({error})") from error


def read_batch(data: bytes, where: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 3, 32, 32) uint8 and labels (n,) int64 of one pickled batch.

    Raises:
        BadFile, UnsafeFile: as for `read`.
    """
    try:
        _check_opcodes(data, where)
        batch = _Unpickler(io.BytesIO(data), where).load()
        labels = torch.tensor(batch["labels"], dtype=torch.int64)
        pixels = np.frombuffer(_raw(batch["data"]), np.uint8).reshape(len(labels), 3, 32, 32)
    except (pickle.UnpicklingError, ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError, MemoryError) as error:
        raise BadFile(f"{where}: not a CIFAR-10 batch ({error})") from error
    return torch.tensor(pixels), labels


class _Call:
    """Stands for one of the few callables a batch names; it only keeps what it is called with. Slots, so that no pickle can change it."""

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} cannot be set")

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)


class _Array:
    """Stands for an array while it is unpickled: keeps the state that NumPy would have interpreted."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Knows the four names that NumPy and Python write into a batch, and makes inert stand-ins of them."""

    def __init__(self, file: io.BytesIO, where: str) -> None:
        super().__init__(file, encoding="latin1")
        self._where = where

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name in ("numpy.core.multiarray", "numpy._core.multiarray") and global_name == "_reconstruct":
            return _Call(lambda *args: _Array())
        if (module_name, global_name) == ("numpy", "dtype"):
            return _Call(lambda *args: _Array())
        if (module_name, global_name) == ("numpy", "ndarray"):
            return "ndarray"
        if (module_name, global_name) == ("_codecs", "encode"):  # how Python 3 writes bytes into an old protocol
            return _Call(lambda text, codec: text)
        raise UnsafeFile(f"{self._where}: the pickle asks for {module_name}.{global_name}, which is not part of a CIFAR-10 batch; not run")


def _check_opcodes(data: bytes, where: str) -> None:
    """Refuse memo indices beyond the file's length: the unpickler would reserve memory for all below them."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(data):
            raise UnsafeFile(f"{where}: the pickle asks for {argument:,} memory slots; not run")


def _raw(data: Any) -> bytes:
    """Bytes of a (n, 3072) uint8 array from NumPy's (version, shape, dtype, is_fortran, data)."""
    _, shape, _, fortran, raw = data.state
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    if not isinstance(raw, bytes) or fortran or len(shape) != 2 or shape[1] != _PIXELS or len(raw) != shape[0] * _PIXELS:
        raise ValueError(f"data must be (n, {_PIXELS}) bytes, got shape {shape}")
    return raw


def _samples(batch: Callable[[str], bytes], where: str) -> Pair:
    parts = [read_batch(batch(name), f"{where}/{name}") for name in (*_TRAIN, "test_batch")]
    images, labels = torch.cat([x for x, _ in parts[:5]]), torch.cat([y for _, y in parts[:5]])
    try:
        return Samples(images, labels, CIFAR10.classes), Samples(*parts[5], CIFAR10.classes)
    except ValueError as error:
        raise BadFile(f"{where}: {error}") from error


def _bytes(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise UnsafeFile(f"{path}: more than the {MAX_BYTES:,} bytes that are allowed")
    return path.read_bytes()


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise BadFile(f"{name} is not a regular file")
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UnsafeFile(f"{name} unpacks to more than the {MAX_BYTES:,} bytes that are allowed")
    return data


CIFAR10 = Published(
    "cifar10",
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    True,
    read,
    (Remote(f"https://www.cs.toronto.edu/~kriz/{_ARCHIVE}", _ARCHIVE, "c58f30108f718f92721af3b95e74349a", 170498071),),
    f"{_FOLDER}/ or {_ARCHIVE}",
)
