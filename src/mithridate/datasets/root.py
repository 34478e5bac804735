"""Where data lies on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def data_root(root: Path | None = None) -> Path:
    """The folder that holds the data sets: the argument, else `MITHRIDATE_DATA`, else the user's cache."""
    if root is not None:
        return root
    named = os.environ.get("MITHRIDATE_DATA")
    return Path(named).expanduser() if named else cache_folder("data")


def cache_folder(*parts: str) -> Path:
    """A folder in the user's cache, not made yet."""
    return Path(platformdirs.user_cache_path("mithridate", appauthor=False), *parts)
