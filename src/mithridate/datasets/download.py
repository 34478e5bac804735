"""Fetching a published file: resumed where it broke off, checked against its published checksum, in place only when whole."""

from __future__ import annotations

import hashlib
import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mithridate.errors import BadFile
from mithridate.roles import Progress, silent

if TYPE_CHECKING:
    import httpx

_CHUNK = 2**20


@dataclass(frozen=True)
class Remote:
    """A file somebody publishes.

    Attributes:
        url: where it is.
        path: where it belongs, relative to the data root.
        md5: its published checksum.
        size: its length in bytes, or 0 where nobody publishes it.
    """

    url: str
    path: str
    md5: str
    size: int = 0


def fetch(remote: Remote, root: Path, progress: Progress = silent, client: httpx.Client | None = None) -> Path:
    """Download one file, or find it there already.

    Args:
        remote: what to fetch.
        root: the data root.
        progress: called with bytes done and bytes in all.
        client: how to reach the network; a default one when None.

    Returns:
        The path of the whole, checked file.

    Raises:
        OSError: no network, or a server that does not give the file.
        BadFile: the file that came has another length or checksum than the published one; it is removed.
    """
    import httpx

    final = root / remote.path
    if final.exists():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    part = final.with_name(f"{final.name}.part")
    try:
        with nullcontext(client) if client else httpx.Client(follow_redirects=True, timeout=30) as session:
            _receive(session, remote, part, progress)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OSError(f"{type(error).__name__}: {error}".partition("\n")[0]) from error
    _check(remote, part)
    return part.replace(final)


def _receive(session: httpx.Client, remote: Remote, part: Path, progress: Progress) -> None:
    """Append what is missing of the partial file, or start anew where the server cannot resume."""
    done = part.stat().st_size if part.exists() else 0
    if remote.size and done >= remote.size:
        return
    headers = {"Range": f"bytes={done}-", "Accept-Encoding": "identity"} if done else {"Accept-Encoding": "identity"}
    with session.stream("GET", remote.url, headers=headers) as response:
        if response.status_code == 416:  # nothing is missing
            return
        response.raise_for_status()
        if response.status_code != 206:
            done = 0
        total = remote.size or done + int(response.headers.get("Content-Length", 0))
        with part.open("ab" if done else "wb") as file:
            for chunk in response.iter_raw(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                if remote.size and done > remote.size:
                    break  # the check below says so
                progress("downloading", done, total, remote.path)
            file.flush()
            os.fsync(file.fileno())


def _check(remote: Remote, part: Path) -> None:
    size = part.stat().st_size
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != remote.md5:
        part.unlink()
        raise BadFile(f"{remote.url}: {size:,} bytes with MD5 {digest} came, expected {remote.md5}; removed, please try again")
