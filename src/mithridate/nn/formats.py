"""What a stranger's file really is, told from its bytes; everything about it that can be checked before it is loaded."""

from __future__ import annotations

import json
import math
import stat
import struct
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from mithridate.errors import BadFile, UnsafeFile
from mithridate.nn import pickles

Kind = Literal["safetensors", "torch", "export"]

MAX_HEADER = 100_000_000
MAX_MEMBERS = 100_000
ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError, EOFError, OverflowError, struct.error)
"""What `zipfile` raises on damaged archives."""
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8}
_BITS |= {"BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8}
_MAGIC = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file (Keras .h5)",
    b"GGUF": "a GGUF file",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "a gzip-compressed file",
    b"\x78\x9c": "a zlib-compressed file (as joblib writes pickles)",
    b"\x78\x01": "a zlib-compressed file (as joblib writes pickles)",
    b"\x78\xda": "a zlib-compressed file (as joblib writes pickles)",
    b"BZh": "a bzip2-compressed file",
    b"\xfd7zXZ\x00": "an xz-compressed file",
    b"\x28\xb5\x2f\xfd": "a zstd-compressed file",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x7fELF": "an executable",
    b"MZ": "an executable",
    b"#!": "a script",
}
_SUFFIXES = {
    ".h5": "Keras", ".keras": "Keras", ".onnx": "ONNX", ".gguf": "GGUF", ".ggml": "GGML", ".tflite": "TensorFlow Lite", ".pb": "TensorFlow",
    ".mlmodel": "Core ML", ".engine": "TensorRT", ".msgpack": "Flax", ".pdparams": "PaddlePaddle", ".params": "MXNet",
}  # fmt: skip


def convert_hint(path: Path) -> str:
    """The line of Python that turns a pickle into a safe file, for whoever made it and trusts it."""
    load = f"m = torch.load({path.name!r}, map_location='cpu', weights_only=False)"
    pick = "d = m.state_dict() if hasattr(m, 'state_dict') else m.get('state_dict', m)"
    save = f"s.save_file({{k: v.clone().contiguous() for k, v in d.items()}}, '{path.stem}.safetensors')"
    return f'ask the giver to run: python -c "import torch, safetensors.torch as s; {load}; {pick}; {save}"'


def identify(path: Path) -> Kind:
    """The kind of a weights file, after every check that needs no loading.

    Raises:
        BadFile: it does not exist, is empty, damaged, or of a kind that is not supported.
        UnsafeFile: it holds code or a pickle that needs more than tensors, is a bomb, or lies about its sizes.
    """
    _check_regular(path)
    with path.open("rb") as file:
        head = file.read(512)
    if head[4:9] == b"\0\0\0\0{":
        return "safetensors"
    if head[:4] == b"PK\x03\x04":  # a zip behind other bytes is what those bytes make of it
        return _identify_zip(path)
    _refuse_foreign(path, head)
    if _check_pickle(path):
        return "torch"
    if path.suffix == ".safetensors":
        return "safetensors"
    raise BadFile(f"{path}: not a model file known here; expected .safetensors, a PyTorch state_dict or a torch.export archive")


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, with every size checked against the file.

    Raises:
        BadFile: not JSON, or an unknown dtype.
        UnsafeFile: a length, an offset or a shape that lies; names that occur twice.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, MAX_HEADER):
            raise UnsafeFile(f"{path}: safetensors header claims {length} bytes, the file has {size}")
        raw = file.read(length)
    try:
        header = json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{path}: safetensors header is not valid JSON: {str(error)[:100]}") from error
    if not isinstance(header, dict):
        raise BadFile(f"{path}: safetensors header must be a JSON object, got {type(header).__name__}")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BadFile(f"{path}: safetensors __metadata__ must map text to text")
    _check_spans(path, {name: entry for name, entry in header.items() if name != "__metadata__"}, size - 8 - length)
    return header


def open_stored_zip(path: Path) -> zipfile.ZipFile:
    """A zip archive whose members are stored uncompressed inside the file, as `torch.save` and `torch.export.save` write them.

    Raises:
        BadFile: the archive is damaged or cut off.
        UnsafeFile: compressed, encrypted or repeated members, or members that claim more bytes than the file has.
    """
    archive = _open_zip(path)
    size, members = path.stat().st_size, archive.infolist()
    claimed = sum(member.file_size for member in members)
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise UnsafeFile(
                f"{path}: member {member.filename[:80]!r} is compressed or encrypted and claims {member.file_size} bytes in "
                f"{member.compress_size}; PyTorch stores its members plainly"
            )
    if claimed > size or any(m.header_offset + m.file_size > size for m in members):
        raise UnsafeFile(f"{path}: members claim {claimed} bytes, the file has {size}")
    return archive


def check_tensors_only(path: Path, data: bytes, what: str, streams: int = 1) -> None:
    """Refuse a pickle that imports anything but tensors.

    Raises:
        BadFile: not a whole pickle.
        UnsafeFile: it imports something else, which the error names.
    """
    try:
        names, _ = pickles.scan(data, streams)
    except ValueError as error:
        raise BadFile(f"{path}: {what} is damaged: {error}") from error
    if bad := pickles.harmful(names):
        raise UnsafeFile(f"{path}: {what} would import {pickles.shown(bad)} when opened, so it was not opened; {convert_hint(path)}")


def _check_regular(path: Path) -> None:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise BadFile(f"{path}: {reason}") from error
    if stat.S_ISDIR(status.st_mode):
        raise BadFile(f"{path}: a folder, not a model file")
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeFile(f"{path}: not a regular file but a device, pipe or socket")
    if not status.st_size:
        raise BadFile(f"{path}: empty file")


def _refuse_foreign(path: Path, head: bytes) -> None:
    if head.startswith(b"\x93NUMPY") and b"|O" in head:
        raise UnsafeFile(f"{path}: a NumPy array of Python objects, which needs a pickle; save plain arrays or a safetensors file")
    kind = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")
    kind = "a tar archive" if head[257:262] == b"ustar" else "a TensorFlow Lite file" if head[4:8] == b"TFL3" else kind
    if not kind and path.suffix.lower() in _SUFFIXES:
        kind = f"a file named as {_SUFFIXES[path.suffix.lower()]}"
    if kind:
        raise BadFile(f"{path}: {kind}, which is not supported; give .safetensors, a PyTorch state_dict or a torch.export archive")


def _check_pickle(path: Path) -> bool:
    """Whether the file is a harmless stream of pickles from `torch.save` before version 1.6; other pickles are refused."""
    with path.open("rb") as file:
        data = file.read(pickles.MAX_PICKLE)
    looks = data[:1] == b"\x80" and 1 < data[1] < 6 if len(data) > 1 else False
    try:
        names, first = pickles.scan(data)
    except ValueError as error:
        if looks and path.suffix != ".safetensors":
            raise BadFile(f"{path}: a pickle that is damaged or cut off: {error}") from error
        return False
    if first == pickles.LEGACY_MAGIC:
        check_tensors_only(path, data, "this PyTorch file", streams=5)
        return True
    runs = f"would import {pickles.shown(names)} when opened" if names else "can run code when opened"
    raise UnsafeFile(f"{path}: a pickle, which {runs}, so it was not opened; {convert_hint(path)}")


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(path)
    except ZIP_ERRORS as error:
        raise BadFile(f"{path}: damaged or cut-off zip archive: {error}") from error
    names = archive.namelist()
    if len(names) > MAX_MEMBERS:
        raise UnsafeFile(f"{path}: zip archive with {len(names)} members, more than {MAX_MEMBERS}")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UnsafeFile(f"{path}: member {twice[0][:80]!r} occurs twice in the archive")
    return archive


def _identify_zip(path: Path) -> Kind:
    with _open_zip(path) as archive:
        names = archive.namelist()
        tails = {name.partition("/")[2] for name in names}
    if any(t == "constants.pkl" or t.startswith("code/") for t in tails):
        raise UnsafeFile(f"{path}: a TorchScript archive, which holds code; it was not opened; save the state_dict as .safetensors instead")
    if any("aotinductor/" in t for t in tails):
        raise UnsafeFile(f"{path}: holds compiled machine code (AOTInductor); it was not opened; use torch.export.save instead")
    if "archive_format" in tails or any(t.startswith("models/") for t in tails):
        open_stored_zip(path).close()
        return "export"
    if "data.pkl" in tails:
        _check_torch_zip(path)
        return "torch"
    if any(name.endswith(".npy") for name in names):
        raise BadFile(f"{path}: a NumPy archive (.npz), not a model; it may hold pickled objects, so it was not opened")
    if any(name.endswith(".h5") for name in names):
        raise BadFile(f"{path}: a Keras archive, which is not supported")
    raise BadFile(f"{path}: a zip archive without a model, beginning with {(names or ['nothing'])[0][:80]!r}; unpack it first")


def _check_torch_zip(path: Path) -> None:
    with open_stored_zip(path) as archive:
        programs = [m for m in archive.infolist() if m.filename.endswith("data.pkl")]
        if len(programs) != 1 or programs[0].file_size > pickles.MAX_PICKLE:
            raise UnsafeFile(f"{path}: must hold one data.pkl of at most {pickles.MAX_PICKLE} bytes, got {[p.file_size for p in programs]}")
        try:
            data = archive.read(programs[0])
        except ZIP_ERRORS as error:
            raise BadFile(f"{path}: damaged zip archive: {error}") from error
    check_tensors_only(path, data, "this PyTorch file")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"name {twice[:80]!r} occurs twice")
    return table


def _check_spans(path: Path, entries: dict[str, Any], size: int) -> None:
    """Every tensor lies inside the data, has the size its shape needs, and they tile it without hole or overlap."""
    spans = sorted((*_span(path, name, entry), name) for name, entry in entries.items())
    end = 0
    for start, stop, name in spans:
        if start != end:
            raise UnsafeFile(f"{path}: tensor {name[:80]!r} starts at byte {start}, expected {end}: overlap or hole")
        end = stop
    if end != size:
        raise UnsafeFile(f"{path}: tensors take {end} bytes, the file holds {size}: cut off or padded")


def _span(path: Path, name: str, entry: Any) -> tuple[int, int]:
    try:
        dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise BadFile(f"{path}: tensor {name[:80]!r} needs dtype, shape and data_offsets, got {str(entry)[:80]}") from error
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise BadFile(f"{path}: tensor {name[:80]!r} has unknown dtype {str(dtype)[:20]!r}")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in (*shape, start, stop)):
        raise UnsafeFile(f"{path}: tensor {name[:80]!r} has an impossible shape or offset: {str(shape)[:60]}, {str((start, stop))[:60]}")
    if stop - start != math.prod(shape) * _BITS[dtype] // 8:
        raise UnsafeFile(f"{path}: tensor {name[:80]!r} of {dtype} {str(shape)[:60]} cannot take {stop - start} bytes")
    return start, stop
