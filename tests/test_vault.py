"""The vault loads what is harmless, bit for bit, and refuses the rest with one line, executing nothing."""

from __future__ import annotations

import os
import pickle
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mithridate.errors import BadFile, MithridateError, UnsafeFile
from mithridate.files import sha256, write_atomic
from mithridate.nn import pickles
from mithridate.nn.vault import load_into, load_state, save_weights

sys.path.insert(0, str(Path(__file__).parent))
import hostile


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[tuple[str, Path]], Path]:
    folder = tmp_path_factory.mktemp("hostile")
    canary = folder / "canary"
    return hostile.write_all(folder, canary), canary


def test_every_hostile_file_is_refused_with_one_line_and_nothing_runs(zoo: tuple[list[tuple[str, Path]], Path]) -> None:
    files, canary = zoo
    assert len(files) > 60
    for name, path in files:
        with pytest.raises((UnsafeFile, BadFile)) as caught:
            load_state(path)
        text = str(caught.value)
        assert "\n" not in text and path.name in text and len(text) < 900, (name, text)
    assert not canary.exists()


def test_the_canary_would_sing(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(hostile.Evil(canary)))
    assert canary.exists()


def test_what_would_run_code_is_called_unsafe_and_says_what(zoo: tuple[list[tuple[str, Path]], Path]) -> None:
    files = dict(zoo[0])
    for name in (
        "evil.pt",
        "evil_legacy.pth",
        "wrapped.pth",
        "bare.bin",
        "hidden.safetensors",
        "hidden_zip.safetensors",
        "polyglot.pt",
        "polyglot_legacy.pt",
        "stack_global.pt",
    ):
        with pytest.raises(UnsafeFile, match=r"(posix|nt)\.system.*torch\.load.*save_file"):
            load_state(files[name])
    with pytest.raises(UnsafeFile, match=r"hostile\.Net"):
        load_state(files["module.pt"])


@pytest.mark.parametrize(
    "name", ["deflated.pt", "claims.pt", "expanded.pt", "strided.pt", "many_views.pt", "objects.npy", "script.pt", "compiled.pt2"]
)
def test_bombs_and_code_are_unsafe(zoo: tuple[list[tuple[str, Path]], Path], name: str) -> None:
    with pytest.raises(UnsafeFile):
        load_state(dict(zoo[0])[name])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        OrderedDict,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {"net": {f"module.{k}": v for k, v in s.items()}, "acc": 91.2},
        lambda s: {"model_state_dict": {f"_orig_mod.module.{k}": v for k, v in s.items()}},
        lambda s: {"model_state": {k: nn.Parameter(v) for k, v in s.items()}},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_state_dicts_load_bit_for_bit(tmp_path: Path, wrap: Callable[[dict[str, Tensor]], Any], zipped: bool) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(hostile.torch_bytes(wrap(hostile.STATE), _use_new_zipfile_serialization=zipped))
    loaded = load_state(path)
    assert (loaded.kind, loaded.sha256) == ("torch", sha256(path))
    assert list(loaded.state) == list(hostile.STATE)
    assert all(torch.equal(loaded.state[k], v) and type(loaded.state[k]) is Tensor for k, v in hostile.STATE.items())


def test_loaded_weights_do_not_hang_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(hostile.torch_bytes(hostile.STATE))
    state = load_state(path).state
    with path.open("r+b") as file:
        file.truncate(10)
    assert torch.equal(state["fc.weight"], hostile.STATE["fc.weight"])


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn]
)
def test_safetensors_round_trip(tmp_path: Path, dtype: torch.dtype) -> None:
    shared = torch.arange(6).view(2, 3).to(dtype)
    state = {"a": shared.T, "b": shared, "scalar": torch.ones((), dtype=dtype), "none": torch.zeros(0, 3, dtype=dtype)}
    save_weights(tmp_path / "deep" / "w.safetensors", state, {"note": "x"})
    loaded = load_state(tmp_path / "deep" / "w.safetensors")
    assert loaded.metadata == {"note": "x"} and loaded.kind == "safetensors"
    assert all(torch.equal(loaded.state[k].float(), v.float()) and loaded.state[k].dtype == dtype for k, v in state.items())


@pytest.mark.parametrize("length", [0x280, 0x480, 0x580, 0x8B1F])
def test_a_header_length_that_looks_like_another_format(tmp_path: Path, length: int) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path = tmp_path / "w.safetensors"
    path.write_bytes(hostile.safetensors_bytes(header.ljust(length), bytes(4)))
    assert load_state(path).state["a"].tolist() == [0.0]


def test_paths_that_are_not_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    (tmp_path / "dangling.pt").symlink_to(tmp_path / "gone.pt")
    (tmp_path / "device.pt").symlink_to("/dev/zero")
    for name in ("", "missing.pt", "pipe.pt", "loop.pt", "dangling.pt", "device.pt", "nul\0.pt", "x" * 5000):
        with pytest.raises(MithridateError):
            load_state(f"{tmp_path}/{name}")


def test_load_into_copies_all_or_nothing() -> None:
    model, twin = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    state = {k: v for k, v in twin.state_dict().items() if not k.endswith("num_batches_tracked")}
    load_into(model, state, "x.pt")
    assert all(torch.equal(v, twin.state_dict()[k]) for k, v in model.state_dict().items())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for bad, message in (
        ({**state, "0.bias": torch.zeros(5)}, r"x\.pt: 0\.bias has shape \(5,\), the model needs \(2,\)"),
        ({k: v for k, v in state.items() if k != "0.weight"}, r"lacks '0\.weight'"),
        ({**state, "extra": torch.zeros(1)}, r"has unknown 'extra'"),
        ({**state, "0.weight": torch.zeros(2, 3, dtype=torch.int8)}, r"dtype torch\.int8"),
    ):
        with pytest.raises(BadFile, match=message):
            load_into(model, bad, "x.pt")
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_atomic_writing_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_save_weights_is_reproducible_and_checks_its_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_weights(tmp_path / f"{name}.safetensors", hostile.STATE)
    assert sha256(tmp_path / "a.safetensors") == sha256(tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="safetensors"):
        save_weights(tmp_path / "a.pt", hostile.STATE)


def test_scan_reads_globals_without_importing() -> None:
    names, _ = pickles.scan(b"cno_such_module\nboom\n(tR.")
    assert names == ["no_such_module.boom"] and "no_such_module" not in sys.modules
    assert pickles.harmful(["collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch.FloatStorage"]) == []
    assert pickles.harmful(["torch.load", "torch.storage._load_from_bytes", "builtins.eval", "?"]) != []
    assert pickles.scan(b"\x80\x02\x82\x01.")[0] == ["?"]


@pytest.mark.parametrize("seed", range(2))
def test_damaged_bytes_never_crash(tmp_path: Path, seed: int) -> None:
    noise, path = torch.Generator().manual_seed(seed), tmp_path / "w"
    sources = [hostile.torch_bytes(hostile.STATE), hostile.torch_bytes(hostile.STATE, _use_new_zipfile_serialization=False)]
    save_weights(tmp_path / "good.safetensors", hostile.STATE)
    sources.append((tmp_path / "good.safetensors").read_bytes())
    for source in sources:
        for _ in range(60):
            data = bytearray(source)
            for at in torch.randint(len(data), (4,), generator=noise).tolist():
                data[at] = int(torch.randint(256, (1,), generator=noise))
            path.write_bytes(data)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                try:
                    state = load_state(path).state
                except (UnsafeFile, BadFile) as error:
                    assert "\n" not in str(error)
                else:
                    assert all(bool(torch.isfinite(t.float()).all()) for t in state.values())
