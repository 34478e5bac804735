"""Where models come from besides files: the hub, and the user's own code."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from torch import nn

from mithridate.errors import BadFile, MissingData, MissingExtra, MithridateError

HUB_SECONDS = 5


def fetch(repo: str, name: str, revision: str | None = None) -> Path:
    """One file of a hub repository, from its cache or over the network.

    Raises:
        MissingExtra: huggingface_hub is not installed.
        MissingData: it cannot be had.
    """
    try:
        from huggingface_hub import constants, hf_hub_download
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "hub") from error
    offline = constants.HF_HUB_OFFLINE or not _reachable(constants.ENDPOINT)
    try:
        return Path(hf_hub_download(repo, name, revision=revision, etag_timeout=HUB_SECONDS, local_files_only=offline)).resolve()
    except Exception as error:  # the library raises its transport's errors as they come
        reason = "no network, and not in the cache" if offline else f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise MissingData(f"{repo}: cannot get {name} from the hub ({reason}); give the path of a weights file instead") from error


def _reachable(endpoint: str) -> bool:
    """Whether anything answers there within seconds; the hub's own client would retry for half a minute."""
    import httpx

    try:
        httpx.head(endpoint, timeout=HUB_SECONDS)
    except httpx.HTTPError:
        return False
    return True


def call_code(path: Path, name: str) -> nn.Module:
    """The model that the named callable in the user's own file returns; the file is run.

    Raises:
        BadFile: no such file, it fails, or it does not return a module.
    """
    if not path.is_file():
        raise BadFile(f"{path}: no such file")
    try:
        model = getattr(_import_file(path), name)()
    except MithridateError:
        raise
    except Exception as error:  # it is the user's code
        raise BadFile(f"{path}:{name} failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(model, nn.Module):
        raise BadFile(f"{path}:{name} must return a torch.nn.Module, got {type(model).__name__}")
    return model


def _import_file(path: Path) -> Any:
    """The file as a module, with its own folder importable while it is read; registered, so that its classes can be copied."""
    full = path.resolve()
    name = f"{full.stem}_{hashlib.sha256(os.fsencode(full)).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, full)
    if spec is None or spec.loader is None:
        raise BadFile(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(full.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(full.parent))
    return module
