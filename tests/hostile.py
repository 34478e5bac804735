"""Files a hostile or careless stranger could give, made when the tests run. Whatever runs code leaves the canary behind."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

Build = Callable[[Path, Path], None]
STATE = {"fc.weight": torch.arange(8.0).view(2, 4), "fc.bias": torch.zeros(2)}


class Evil:
    """Its pickle makes the canary file when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


class Net(nn.Module):
    """What people pickle whole."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)


def safetensors_bytes(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header, true or not."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive of these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def rezipped(data: bytes, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """The same archive with members changed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return zipped({name: change(name, archive.read(name)) for name in archive.namelist()}, compression)


def torch_bytes(content: Any, **options: Any) -> bytes:
    """What `torch.save` writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def exported_bytes(model: nn.Module, images: torch.Tensor, dynamic: bool = True) -> bytes:
    """What `torch.export.save` writes."""
    buffer = io.BytesIO()
    shapes = ({0: torch.export.Dim("batch", min=1, max=1024)},) if dynamic else None
    torch.export.save(torch.export.export(model, (images,), dynamic_shapes=shapes), buffer)
    return buffer.getvalue()


def npy_bytes(array: np.ndarray[Any, Any]) -> bytes:
    """What `numpy.save` writes."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def pickles(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Files that run code when they are opened as their makers would."""
    evil = Evil(canary)
    for protocol in (0, 2, 4, 5):
        yield f"protocol{protocol}.pkl", pickle.dumps(evil, protocol)
    yield "evil.pt", torch_bytes({"fc.weight": torch.ones(2, 4), "x": evil})
    yield "evil_legacy.pth", torch_bytes({"fc.weight": torch.ones(2, 4), "x": evil}, _use_new_zipfile_serialization=False)
    yield "wrapped.pth", torch_bytes({"state_dict": STATE, "args": evil})
    yield "bare.bin", pickle.dumps(evil)
    yield "hidden.safetensors", pickle.dumps(evil)
    yield "hidden_zip.safetensors", torch_bytes(evil)
    yield "polyglot.pt", pickle.dumps(evil) + torch_bytes(STATE)
    yield "polyglot_legacy.pt", torch_bytes(evil, _use_new_zipfile_serialization=False) + torch_bytes(STATE)
    yield "module.pt", torch_bytes(Net())
    yield "module_legacy.pt", torch_bytes(Net(), _use_new_zipfile_serialization=False)
    yield "joblib.joblib", pickle.dumps({"weights": evil})
    yield "joblib_zlib.joblib", zlib.compress(pickle.dumps(evil))
    yield "objects.npy", npy_bytes(np.array([evil], dtype=object))
    yield "objects.npz", zipped({"a.npy": npy_bytes(np.array([evil], dtype=object))})
    yield "setstate.pt", zipped({"a/data.pkl": b"\x80\x02cposix\nsystem\nX" + _text(f"touch {canary}") + b"\x85R.", "a/version": b"3"})
    memoized = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94h\x00h\x01\x93X" + _text(f"touch {canary}") + b"\x85R."
    yield "stack_global.pt", zipped({"a/data.pkl": memoized, "a/version": b"3"})


def _text(text: str) -> bytes:
    return len(text).to_bytes(4, "little") + text.encode()


def liars(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Safetensors files whose headers lie, and tensors that are not numbers."""
    good, entry = save(STATE), {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    yield "length_over_file", safetensors_bytes(b"{}", length=1 << 40)
    yield "length_max", b"\xff" * 8 + b"{}"
    yield "offset_over_file", safetensors_bytes({"a": {**entry, "shape": [2000], "data_offsets": [0, 8000]}}, bytes(8))
    yield "overlap", safetensors_bytes({"a": entry, "b": {**entry, "data_offsets": [4, 12]}}, bytes(12))
    yield "hole", safetensors_bytes({"a": entry, "b": {**entry, "data_offsets": [12, 20]}}, bytes(20))
    yield "backwards", safetensors_bytes({"a": {**entry, "data_offsets": [8, 0]}}, bytes(8))
    yield "negative", safetensors_bytes({"a": {**entry, "shape": [-2], "data_offsets": [0, -8]}}, bytes(8))
    yield "shape_lies", safetensors_bytes({"a": {**entry, "shape": [1 << 40]}}, bytes(8))
    yield "huge_shape", safetensors_bytes({"a": {**entry, "shape": [1 << 62, 1 << 62]}}, bytes(8))
    yield "dtype_lies", safetensors_bytes({"a": {**entry, "dtype": "F64"}}, bytes(8))
    yield "dtype_unknown", safetensors_bytes({"a": {**entry, "dtype": "F31"}}, bytes(8))
    yield "dtype_list", safetensors_bytes({"a": {**entry, "dtype": ["F32"]}}, bytes(8))
    yield "duplicate", safetensors_bytes(b'{"a":%b,"a":%b}' % ((json.dumps(entry).encode(),) * 2), bytes(8))
    yield "padded", safetensors_bytes({"a": entry}, bytes(100))
    yield "bool_shape", safetensors_bytes({"a": {**entry, "shape": [True, 2]}}, bytes(8))
    yield "entry_list", safetensors_bytes({"a": [1, 2]}, bytes(8))
    yield "deep_json", safetensors_bytes(b"[" * 100_000)
    yield "not_json", safetensors_bytes(b"{" + bytes(range(128, 200)))
    yield "header_list", safetensors_bytes(b"[]")
    yield "metadata_number", safetensors_bytes({"__metadata__": {"a": 1}, "a": entry}, bytes(8))
    yield "nothing", safetensors_bytes({})
    yield "random", np.random.default_rng(0).bytes(4096)
    yield "short", b"abc"
    for cut in (7, 20, len(good) - 1):
        yield f"cut_at_{cut}", good[:cut]
    yield "escape", safetensors_bytes({"\x1b[2J\n" * 99: {**entry, "dtype": "F31"}}, bytes(8))
    yield "nan", save({"a": torch.tensor([1.0, float("nan")])})
    yield "infinite_bf16", save({"a": torch.tensor([float("inf")], dtype=torch.bfloat16)})


def bombs(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Archives that claim or unpack to far more than they weigh, or are broken."""
    good = torch_bytes(STATE)
    zeros = bytes(1 << 26)
    yield "deflated.pt", rezipped(good, lambda name, data: zeros if name.endswith("/0") else data, zipfile.ZIP_DEFLATED)
    yield "deflated_pickle.pt", zipped({"a/data.pkl": zeros}, zipfile.ZIP_DEFLATED)
    yield "claims.pt", _claiming(good, 1 << 30)
    yield (
        "storage.pt",
        rezipped(
            good,
            lambda name, data: (
                data.replace(b"K\x02K\x04\x86", b"K\x02J\0\0\0\x10\x86").replace(b"K\x08t", b"J\0\0\0\x20t")
                if name.endswith("data.pkl")
                else data
            ),
        ),
    )
    yield "expanded.pt", torch_bytes({"a": torch.zeros(1).expand(1 << 40)})
    yield "strided.pt", torch_bytes({"a": torch.zeros(1).as_strided((1 << 20, 1 << 20), (0, 0))})
    yield "many_views.pt", torch_bytes({str(i): (base := torch.zeros(1 << 14)) if not i else base for i in range(100)})
    yield "twice.pt", good.replace(b"archive/version", b"archive/data/12")[:] if b"archive/version" in good else good[:100]
    yield "nested.zip", zipped({"inner.zip": zipped({"a": zeros}, zipfile.ZIP_DEFLATED)}, zipfile.ZIP_DEFLATED)
    yield "gzip.pt", b"\x1f\x8b\x08" + bytes(40)
    for cut in (10, 100, len(good) // 2, len(good) - 10):
        yield f"cut_at_{cut}.pt", good[:cut]
    legacy = torch_bytes(STATE, _use_new_zipfile_serialization=False)
    for cut in (10, 100, len(legacy) - 5):
        yield f"legacy_cut_at_{cut}.pt", legacy[:cut]
    yield "sparse.pt", torch_bytes({"a": torch.eye(3).to_sparse()})
    yield "numbers.pt", torch_bytes({"epoch": 3, "lr": 0.1})
    yield "list.pt", torch_bytes([torch.ones(2)])
    yield "nan.pt", torch_bytes({"a": torch.tensor([float("nan")])})


def _claiming(archive: bytes, size: int) -> bytes:
    """The archive with the sizes of its first member in the central directory replaced."""
    at = archive.index(b"PK\x01\x02")
    return archive[: at + 20] + size.to_bytes(4, "little") * 2 + archive[at + 28 :]


def foreign(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Files of other worlds."""
    yield "model.h5", b"\x89HDF\r\n\x1a\n" + bytes(100)
    yield "model.gguf", b"GGUF" + bytes(100)
    yield "model.onnx", b"\x08\x07\x12\x07pytorch" + bytes(50)
    yield "model.keras", zipped({"config.json": b"{}", "model.weights.h5": b"x"})
    yield "plain.npy", npy_bytes(np.ones(3))
    yield "old.tar", bytes(257) + b"ustar" + bytes(300)
    yield "empty.pt", b""
    yield "text.pt", b"hello\n"
    yield "compiled.pt2", zipped({"m/archive_format": b"pt2", "m/data/aotinductor/model/a.so": b"\x7fELF"})
    yield "script.pt", zipped({"m/data.pkl": b"\x80\x02.", "m/constants.pkl": b"\x80\x02).", "m/code/__torch__.py": b"op = 1"})


def write_all(folder: Path, canary: Path) -> list[tuple[str, Path]]:
    """Every hostile file, written into the folder: (name, path)."""
    made = []
    for source in (pickles, bombs, foreign, liars):
        for name, data in source(canary):
            path = folder / (f"{name}.safetensors" if source is liars else name)
            path.write_bytes(data)
            made.append((name, path))
    return made
