"""Weights that strangers give: loaded without ever executing anything, or refused with one clear line; and saved atomically.

Supported: safetensors; `state_dict`s from `torch.save`, read with PyTorch's tensors-only unpickler after a scan of the
opcodes; `torch.export` archives (in `nn.exported`). What else needs a pickle is refused before it is read.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from mithridate.errors import BadFile, UnsafeFile
from mithridate.files import sha256, write_atomic
from mithridate.nn.formats import Kind, convert_hint, identify, read_header

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """Weights that passed every check.

    Attributes:
        state: name -> tensor, contiguous, finite, on the CPU.
        kind: `safetensors` or `torch`.
        sha256: of the file, 64 hex digits.
        metadata: text that came along in a safetensors header.
    """

    state: dict[str, Tensor] = field(repr=False)
    kind: Kind
    sha256: str
    metadata: dict[str, str]


def load_state(path: str | os.PathLike[str]) -> Loaded:
    """The weights in a file that nobody vouches for.

    Raises:
        BadFile: missing, damaged, of an unsupported kind, without weights, or with weights that are not finite.
        UnsafeFile: it could run code, exhaust memory or lies about itself; it was not opened.
    """
    file = Path(path)
    kind = identify(file)
    if kind == "export":
        raise BadFile(f"{file}: a torch.export archive is a whole model, not weights; give it without an architecture")
    if kind == "safetensors":
        state, metadata = _load_safetensors(file)
    else:
        state, metadata = _load_torch(file), {}
    return Loaded(_checked(file, state), kind, sha256(file), metadata)


def load_into(model: nn.Module, state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Copy weights into a model, whole or not at all; missing `num_batches_tracked` counters are left as they are.

    Args:
        path: where the weights came from, for the error.

    Raises:
        BadFile: a name or a shape differs, naming the first ones.
    """
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    surplus = [name for name in state if name not in wanted]
    if missing or surplus:
        parts = [f"{word} {_few(names)}" for word, names in (("lacks", missing), ("has unknown", surplus)) if names]
        raise BadFile(f"{path}: does not fit the model: {'; '.join(parts)}")
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            raise BadFile(f"{path}: {name} has shape {tuple(tensor.shape)}, the model needs {tuple(wanted[name].shape)}")
        if tensor.is_floating_point() != wanted[name].is_floating_point():
            raise BadFile(f"{path}: {name} has dtype {tensor.dtype}, the model needs {wanted[name].dtype}")
    model.load_state_dict(dict(state), strict=False)


def save_weights(path: str | os.PathLike[str], state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Save weights as safetensors, atomically; the same weights give the same bytes.

    Raises:
        ValueError: the path does not end in `.safetensors`.
        OSError: the folder cannot be written to.
    """
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"path must end in .safetensors, got {str(path)!r}")
    # Weights may share memory (tied layers), which the format cannot express: each name gets its own copy.
    copies = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    write_atomic(path, save_safetensors(copies, dict(metadata) if metadata else None))


def finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor if tensor.itemsize > 1 else tensor.float()).all())


def _load_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    header = read_header(path)
    try:
        return load_safetensors(path.read_bytes()), header.get("__metadata__", {})
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise BadFile(f"{path}: {_line(error)}") from error


def _load_torch(path: Path) -> dict[str, Any]:
    """Read tensors only. The file is mapped where it is a zip, so that no record can be read past its end."""
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise UnsafeFile(f"{path}: needs a pickle of more than tensors, so it was refused; {convert_hint(path)}") from error
    except Exception as error:  # a damaged file makes the reader fail in any way
        raise BadFile(f"{path}: damaged or cut off: {type(error).__name__}: {_line(error)}") from error
    return _strip(_find_state(path, content))


def _find_state(path: Path, content: Any, depth: int = 3) -> dict[str, Any]:
    """The table of tensors inside what training scripts save around it."""
    if isinstance(content, Mapping) and content and all(isinstance(value, Tensor) for value in content.values()):
        return {str(name): value for name, value in content.items()}
    if not isinstance(content, Mapping):
        raise BadFile(f"{path}: holds a {type(content).__name__}, not a table of named weights")
    for key in WRAPPERS:
        if depth and isinstance(content.get(key), Mapping):
            return _find_state(path, content[key], depth - 1)
    raise BadFile(f"{path}: no table of named weights among {_few([str(key) for key in content]) or 'nothing'}")


def _strip(state: dict[str, Any]) -> dict[str, Any]:
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            return _strip({name.removeprefix(prefix): value for name, value in state.items()})
    return state


def _checked(path: Path, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Plain copies of the tensors, after checks that cost no more memory than the file has bytes."""
    if not state:
        raise BadFile(f"{path}: holds no weights")
    room = 4 * path.stat().st_size  # tied weights may occur under several names
    checked: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise BadFile(f"{path}: weight {name[:80]!r} is not a plain dense tensor")
        need = tensor.numel() * tensor.itemsize
        room -= need
        if room < 0 or need > tensor.untyped_storage().nbytes():
            raise UnsafeFile(f"{path}: weight {name[:80]!r} of shape {tuple(tensor.shape)} claims more bytes than the file holds")
        if not finite(tensor):
            raise BadFile(f"{path}: weight {name[:80]!r} holds NaN or infinity")
        checked[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
    return checked


def _few(names: list[str]) -> str:
    return ", ".join(repr(name[:80]) for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
