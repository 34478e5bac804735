"""A card: one judged result with everything needed to repeat it."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import platform
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from mithridate.files import write_atomic

NUMBERS = re.compile(r"\[\s+([-+.\w,\s]*?)\s+\]")  # of indented JSON, whose strings hold no line breaks
POINTS = re.compile(r"\[\n\s+(\[[-+.\w,\s\[\]]*?\])\n\s+\]")
PACKAGES = ("mithridate", "torch", "numpy", "scikit-learn", "safetensors", "lightning-fabric", "timm", "torchvision")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> str:
    """The processor or GPU in words."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # an older PyTorch cannot say
    return f"{found.get('architecture', platform.machine())}, {torch.get_num_threads()} threads"


def commit() -> str:
    """The commit of the source tree this runs from, or `unknown` for an installed package or where there is no git."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    try:  # a package installed inside someone's own repository is not of that repository
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True, check=True)
        result = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return result.stdout.strip()


_versions_once, _commit_once = functools.cache(versions), functools.cache(commit)  # neither changes while a process runs


@dataclass(frozen=True, kw_only=True)
class Card:
    """One judged result.

    Attributes:
        kind: what was judged, such as `victim`, `audit` or `speed`.
        config: every setting, seeds included.
        metrics: name -> number, or [number, low, high] with its 95 % interval; shares in [0, 1].
        status: `done`, or `dead` (an attack that does not work) or `failed`, either with a `reason`.
        reason: why it is dead or failed.
        seconds: name of a step -> wall-clock seconds.
        cost: what it took beside time, such as `forwards` and `gradients` (images) and `peak_memory` (bytes).
        curves: name -> points (x, y) or values, to be drawn.
        versions: package -> version.
        hardware: what it ran on.
        commit: of the code.
    """

    kind: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    status: Literal["done", "dead", "failed"] = "done"
    reason: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    cost: dict[str, int] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict, repr=False)
    versions: dict[str, str] = field(default_factory=lambda: dict(_versions_once()))
    hardware: str = field(default_factory=hardware)
    commit: str = field(default_factory=_commit_once)

    def __repr__(self) -> str:
        return f"Card({self.kind}: {', '.join(f'{name} {_short(value)}' for name, value in self.metrics.items())})"

    def write(self, path: Path, *, durable: bool = True) -> None:
        """Write the card as JSON, atomically, and so that it survives a power cut, unless said."""
        write_atomic(path, _lines(dataclasses.asdict(self)).encode() + b"\n", durable=durable)

    @classmethod
    def read(cls, path: Path) -> Card:
        """The card a file holds."""
        return cls(**json.loads(path.read_text()))


def _lines(told: dict[str, Any]) -> str:
    """Indented JSON, with numbers in a row, and a curve's points, on one line each: a card is read by people, and kept in git."""
    text = json.dumps(told, indent=2)
    for rows in (NUMBERS, POINTS):
        text = rows.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
    return text


def _short(value: Any) -> str:
    """A metric without its interval, with few digits."""
    head = value[0] if isinstance(value, (list, tuple)) and value else value
    return f"{head:.4g}" if isinstance(head, float) else str(head)
