"""A guard on disk: its fitted state as safetensors, everything else as TOML. Nothing is pickled."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w
from torch import Tensor, nn

from mithridate.calibrate import threshold
from mithridate.errors import BadFile
from mithridate.files import sha256, write_atomic
from mithridate.nn.scorers import TraceScorer, rebuild
from mithridate.nn.vault import load_state, save_weights
from mithridate.spec import parse

if TYPE_CHECKING:
    from mithridate.guard.guard import Guard

FORMAT = 1


def save(guard: Guard, folder: Path) -> None:
    """Write `guard.safetensors` (buffers and calibration scores) and `guard.toml` into a folder. The model is not in them."""
    state: dict[str, Tensor] = {}
    for i, scorer in enumerate(guard.scorers):
        state |= {f"{i}.buffer.{name}": value.cpu() for name, value in scorer.state_dict().items()}
        state[f"{i}.calibration"] = guard.calibration[i].detach().cpu()
    save_weights(folder / "guard.safetensors", state)
    detectors = [{"spec": spec, "layers": list(s.layers)} for spec, s in zip(guard.specs, guard.fitted(), strict=True)]
    about = {"format": FORMAT, "fpr": guard.fpr, "sha256": sha256(folder / "guard.safetensors"), "detectors": detectors}
    write_atomic(folder / "guard.toml", tomli_w.dumps(about).encode())


def load(folder: Path, model: nn.Module) -> tuple[dict[str, TraceScorer], dict[str, Tensor], float]:
    """Scorers, calibration scores and false-positive rate that `save` wrote, for the model the guard was fitted on.

    Raises:
        BadFile: missing, damaged, of another format, two files that do not belong together, or a guard of another model.
    """
    path, weights = folder / "guard.toml", folder / "guard.safetensors"
    about, loaded = _read(path), load_state(weights)
    if about.get("sha256") != loaded.sha256:
        raise BadFile(f"{weights}: not the file that {path.name} was written with")
    try:
        return _rebuild(about, loaded.state, model)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadFile(f"{path}: not a guard of this model: {type(error).__name__}: {error}") from error


def _rebuild(
    about: dict[str, Any], state: Mapping[str, Tensor], model: nn.Module
) -> tuple[dict[str, TraceScorer], dict[str, Tensor], float]:
    fpr, scorers, calibration = float(about["fpr"]), {}, {}
    for i, entry in enumerate(about["detectors"]):
        buffers = {k.removeprefix(f"{i}.buffer."): v for k, v in state.items() if k.startswith(f"{i}.buffer.")}
        scorers[entry["spec"]] = rebuild(parse(entry["spec"], "detector").scorer, model, entry["layers"], buffers)
        calibration[entry["spec"]] = state[f"{i}.calibration"]
        threshold(state[f"{i}.calibration"], fpr / len(about["detectors"]))
    return scorers, calibration, fpr


def _read(path: Path) -> dict[str, Any]:
    try:
        about = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadFile(f"{path}: not a readable guard ({error})") from error
    if about.get("format") != FORMAT or not isinstance(about.get("detectors"), list) or not about["detectors"]:
        raise BadFile(f"{path}: format must be {FORMAT} with a list of detectors, got {about.get('format')!r}")
    return about
