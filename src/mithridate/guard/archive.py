"""A guard on disk: its fitted state as safetensors, everything else as TOML. Nothing is pickled."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w
from torch import Tensor, nn

from mithridate.errors import BadFile
from mithridate.files import write_atomic
from mithridate.nn.scorers import TraceScorer
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
    about = {"format": FORMAT, "fpr": guard.fpr, "detectors": detectors}
    write_atomic(folder / "guard.toml", tomli_w.dumps(about).encode())


def load(folder: Path, model: nn.Module) -> tuple[dict[str, TraceScorer], dict[str, Tensor], float]:
    """Scorers, calibration scores and false-positive rate that `save` wrote, for the model the guard was fitted on.

    Raises:
        BadFile: missing, damaged or of another format.
    """
    about = _read(folder / "guard.toml")
    state = load_state(folder / "guard.safetensors").state
    scorers, calibration = {}, {}
    for i, entry in enumerate(about["detectors"]):
        buffers = {k.removeprefix(f"{i}.buffer."): v for k, v in state.items() if k.startswith(f"{i}.buffer.")}
        scorers[entry["spec"]] = parse(entry["spec"], "detector").scorer(model, entry["layers"], buffers)
        calibration[entry["spec"]] = state[f"{i}.calibration"]
    return scorers, calibration, float(about["fpr"])


def _read(path: Path) -> dict[str, Any]:
    try:
        about = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadFile(f"{path}: not a readable guard ({error})") from error
    if about.get("format") != FORMAT or not isinstance(about.get("detectors"), list):
        raise BadFile(f"{path}: format must be {FORMAT} with a list of detectors, got {about.get('format')!r}")
    return about
