"""Judging an inspector: infected or not, and towards which class. What it saw is kept for the repairs that build on it."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mithridate.bench.judgments.case import Case, Finding
from mithridate.roles import Verdict

FILE = "verdict.safetensors"


def inspection(case: Case) -> Finding:
    """An inspector on the victim; right means the right verdict, and for an infected model the right class as well."""
    found, key = Finding(), case.victim.key
    with found.timed(case):
        verdict = case.defense.inspect(case.victim.model, case.parts.fit, seed=case.seed, progress=case.progress)
    right = not verdict.infected
    if key is not None:
        wanted = {key.target} if isinstance(key.target, int) else set(key.target)
        right = verdict.infected and verdict.target in wanted
    found.metrics = {"right": right, "infected": verdict.infected, "target": verdict.target, "p_value": verdict.p_value}
    found.curves["per_class"] = verdict.per_class.tolist()
    write_verdict(verdict, case.out)
    return found


def write_verdict(verdict: Verdict, folder: Path) -> None:
    """Keep a verdict with its evidence."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {"infected": verdict.infected, "target": verdict.target, "p_value": verdict.p_value, "note": verdict.note}
    tensors = {"per_class": verdict.per_class} | {f"evidence.{name}": tensor for name, tensor in verdict.evidence.items()}
    save_file({name: _own(tensor) for name, tensor in tensors.items()}, folder / FILE, {"verdict": json.dumps(told)})


def read_verdict(folder: Path) -> Verdict | None:
    """The verdict that `write_verdict` left; None where there was nothing to inspect, because the attack is dead."""
    if not (folder / FILE).exists():
        return None
    with safe_open(folder / FILE, framework="pt") as stored:
        told = json.loads((stored.metadata() or {})["verdict"])
        tensors: dict[str, Tensor] = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
    evidence = {name.removeprefix("evidence."): tensor for name, tensor in tensors.items() if name.startswith("evidence.")}
    return Verdict(told["infected"], told["target"], told["p_value"], tensors["per_class"], evidence, told["note"])


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()
