"""The state of a run in a file: whole, of this very run, or as good as none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, uint8

from mithridate.nn.vault import save_weights


def write_state(path: Path, state: Mapping[str, Tensor], *, run: str, epochs: int) -> None:
    """Write named tensors, atomically, as safetensors, with the run they belong to and the epochs behind them."""
    told = {"epochs": str(epochs), "run": run, "state": digest("", (state[name] for name in sorted(state)))}
    save_weights(path, dict(state), told)


def read_state(path: Path, run: str) -> tuple[dict[str, Tensor], int]:
    """The tensors that the same run wrote, on the CPU, and the epochs behind them; none and 0 if there is no whole file of it."""
    if not path.exists():
        return {}, 0
    try:
        with safe_open(path, framework="pt") as stored:
            told = stored.metadata() or {}
            state = {name: stored.get_tensor(name) for name in sorted(stored.keys())} if told.get("run") == run else {}
    except SafetensorError:
        return {}, 0
    whole = bool(state) and told.get("state") == digest("", state.values())
    return (state, int(told["epochs"])) if whole else ({}, 0)


def digest(text: str, tensors: Iterable[Tensor]) -> str:
    """64 hex digits of a text and of the types, shapes and values of tensors."""
    found = hashlib.sha256(text.encode())
    for tensor in tensors:
        found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(uint8).numpy().data)
    return found.hexdigest()
