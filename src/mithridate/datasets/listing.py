"""The files of a folder or a .zip, read the same way and never unpacked, so that no path can escape and no bomb can go off."""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from mithridate.datasets.pixels import SUFFIXES
from mithridate.errors import BadFile, MissingData, UnsafeFile

MAX_FILE = 256 * 2**20
MAX_TOTAL = 64 * 2**30
MAX_ENTRIES = 4_000_000
MAX_RATIO = 1100  # deflate cannot exceed 1032; more means that the header lies


@dataclass(frozen=True, eq=False)
class Listing:
    """Files under one root.

    Attributes:
        where: what errors call the root.
        names: relative POSIX paths, sorted.
        key: changes when any file does (names, sizes, times).
        read: a file's bytes by its relative path; raises `BadFile` or `UnsafeFile`.
    """

    where: str
    names: tuple[str, ...] = field(repr=False)
    key: str
    read: Callable[[str], bytes] = field(repr=False)

    def under(self, folder: str) -> Listing:
        """The part below a folder, with paths relative to it; "" gives everything."""
        prefix = f"{folder}/" if folder else ""
        names = tuple(name[len(prefix) :] for name in self.names if name.startswith(prefix))
        where = f"{self.where}/{folder}" if folder else self.where
        return Listing(where, names, f"{self.key}/{folder}", lambda name: self.read(prefix + name))

    def only(self, names: Iterable[str]) -> Listing:
        """Some of the files."""
        return replace(self, names=tuple(sorted(names)))

    def folders(self) -> list[str]:
        """Names of the top-level folders, sorted."""
        return sorted({name.partition("/")[0] for name in self.names if "/" in name})


@contextmanager
def listed(path: Path) -> Iterator[Listing]:
    """The files of a folder (hidden ones left out), of a .zip, or one image.

    Raises:
        MissingData: nothing is there.
        BadFile: a folder that cannot be read, or a file that is not an image or a .zip, or a damaged one.
        UnsafeFile: a .zip with absolute or climbing paths, or larger than it can honestly be.
    """
    if path.is_dir():
        try:
            found = _folder(path)
        except OSError as error:
            raise BadFile(f"{path}: cannot be read ({error})") from error
        yield found
    elif not path.exists():
        raise MissingData(f"{path} does not exist")
    elif path.suffix.lower() in SUFFIXES:
        state = path.stat()
        yield Listing(str(path.parent), (path.name,), f"{state.st_size} {state.st_mtime_ns}", lambda name: _read_file(path.parent / name))
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                yield _zip(path, archive)
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise BadFile(f"{path}: neither an image nor a readable .zip file ({error})") from error


def _folder(root: Path) -> Listing:
    found: dict[str, str] = {}
    top, folders, files = next(os.walk(root))
    _collect(found, root, Path(top), files)
    for folder in sorted(folders):
        for here, below, inside in os.walk(root / folder):  # class folders may be links, deeper ones are not followed
            below[:] = [name for name in below if not name.startswith(".")]
            if not folder.startswith("."):
                _collect(found, root, Path(here), inside)
    names = tuple(sorted(found))
    key = hashlib.sha256("\n".join(f"{name} {found[name]}" for name in names).encode("utf-8", "surrogateescape")).hexdigest()
    return Listing(str(root), names, key, lambda name: _read_file(root / name))


def _collect(found: dict[str, str], root: Path, here: Path, files: list[str]) -> None:
    for name in files:
        if not name.startswith("."):
            state = (here / name).stat()
            if stat.S_ISREG(state.st_mode):  # a pipe would block for ever
                found[(here / name).relative_to(root).as_posix()] = f"{state.st_size} {state.st_mtime_ns}"


def _read_file(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE:
            raise UnsafeFile(f"{path}: {size:,} bytes, more than the {MAX_FILE:,} that are allowed for one image")
        return path.read_bytes()
    except OSError as error:
        raise BadFile(f"{path}: cannot be read ({error})") from error


def _zip(path: Path, archive: zipfile.ZipFile) -> Listing:
    _check_entries(path, archive.infolist())
    entries = {e.filename: e for e in archive.infolist() if not e.is_dir() and not _hidden(e.filename)}
    state = path.stat()
    key = hashlib.sha256(f"{path.resolve()} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()

    def read(name: str) -> bytes:
        where = f"{path}/{name}"
        try:
            with archive.open(entries[name]) as file:
                data = file.read(MAX_FILE + 1)
        except (RuntimeError, OSError, EOFError, zlib.error) as error:
            raise BadFile(f"{where}: cannot be read ({error})") from error
        if len(data) > MAX_FILE:
            raise UnsafeFile(f"{where}: unpacks to more than the {MAX_FILE:,} bytes that are allowed for one image")
        return data

    return Listing(str(path), tuple(sorted(entries)), key, read)


def _hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_ENTRIES:
        raise UnsafeFile(f"{path}: {len(entries):,} entries, more than the {MAX_ENTRIES:,} that are allowed")
    total = sum(entry.file_size for entry in entries)
    if total > MAX_TOTAL:
        raise UnsafeFile(f"{path}: unpacks to {total:,} bytes, more than the {MAX_TOTAL:,} that are allowed")
    for entry in entries:
        name = entry.filename
        if name.startswith("/") or "\\" in name or ":" in name.partition("/")[0] or ".." in PurePosixPath(name).parts:
            raise UnsafeFile(f"{path}: entry {name!r} points outside of the archive")
        if entry.file_size > MAX_FILE or entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
            raise UnsafeFile(f"{path}: entry {name!r} claims to unpack from {entry.compress_size:,} to {entry.file_size:,} bytes")
