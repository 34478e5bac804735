"""Files that are never half-written, and their fingerprints."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
from pathlib import Path


def write_atomic(path: str | os.PathLike[str], data: bytes, *, durable: bool = True) -> None:
    """Write a file so that a reader sees the old bytes or the new ones, never a part, even after a crash or a kill.

    The bytes go to a temporary file in the same folder, are flushed to the disk and then renamed. Missing folders are made.

    Args:
        path: of the file.
        data: its bytes.
        durable: wait until the disk has them, so that a power cut cannot take them back; without, it may also leave an empty file.

    Raises:
        OSError: the folder cannot be written to.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if durable:
        _sync_folder(target.parent)


def claim(folder: str | os.PathLike[str]) -> None:
    """Make a folder ready for one run's files: it exists, can be written to, and holds no leftovers of writes that were killed.

    Raises:
        OSError: it is no folder, or cannot be made or written to.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise OSError(f"cannot write files into {place}: {error.strerror}") from error
    for leftover in (*place.glob(".*.part"), *place.glob(".*.tmp")):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def claim_file(path: str | os.PathLike[str], suffix: str) -> None:
    """Refuse a file that could not be written; its folder is made.

    Args:
        path: of the file.
        suffix: what it must end in, such as `.png`.

    Raises:
        ValueError: another ending.
        OSError: there is a folder of that name, or its own folder cannot be made or written to.
    """
    target = Path(path)
    if target.suffix.lower() != suffix:
        raise ValueError(f"out must end in {suffix}, got {str(target)!r}")
    if target.is_dir():
        raise OSError(f"cannot write {target}: it is a folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise OSError(f"cannot write {target}: {error.strerror}") from error


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file as 64 hex digits, read in pieces.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system can (Windows cannot open folders)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
