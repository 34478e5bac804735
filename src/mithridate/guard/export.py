"""A guard as one `torch.export` program, for a service in which this package is not installed."""

from __future__ import annotations

import io
import textwrap
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mithridate.files import write_atomic
from mithridate.nn.modes import frozen
from mithridate.nn.scorers import TraceScorer
from mithridate.nn.taps import trace

if TYPE_CHECKING:
    from mithridate.guard.guard import Guard


class Program(nn.Module):
    """What is exported: tensors in, tensors out.

    Args:
        guard: a fitted guard.
        specs: those of its detectors that count.
    """

    cuts: Tensor
    clean: Tensor

    def __init__(self, guard: Guard, specs: tuple[str, ...]) -> None:
        super().__init__()
        self.model = guard.model
        self.scorers = nn.ModuleList(scorer for spec, scorer in zip(guard.specs, guard.fitted(), strict=True) if spec in specs)
        self.layers = guard.layers
        known = [clean.detach().sort().values for spec, clean in zip(guard.specs, guard.calibration, strict=True) if spec in specs]
        self.register_buffer("clean", torch.stack(known) if known else torch.zeros(0, 1))
        self.register_buffer("cuts", torch.tensor([float(guard.threshold(spec).cut) for spec in specs]))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Float images (n, c, h, w) in [0, 1] -> `logits`, `predicted`, `scores`, `tails` and `flagged`."""
        seen = trace(self.model, images, self.layers)
        scores = [scorer.score(seen) for scorer in self.scorers if isinstance(scorer, TraceScorer)]
        table = torch.stack(scores, 1) if scores else seen.logits[:, :0]
        flagged = ~(table <= self.cuts.to(table)).all(1)  # what is not a number is not to be believed
        above = self.clean.shape[1] - torch.searchsorted(self.clean, table.T.contiguous().to(self.clean)).T
        tails = (1 + above) / (self.clean.shape[1] + 1)
        return {"logits": seen.logits, "predicted": seen.predicted, "scores": table, "tails": tails, "flagged": flagged}


def export(guard: Guard, path: Path, images: Tensor) -> None:
    """As `Guard.export` says."""
    if len(images) < 2:
        raise ValueError(f"images must hold at least 2, so that their number stays open, got {len(images)}")
    try:
        program = _exported(guard, guard.specs, images)
    except Exception as error:
        culprits = [spec for spec in guard.specs if not _can(guard, (spec,), images)]
        who = "the model" if not _can(guard, (), images) else ", ".join(culprits) or " with ".join(guard.specs)
        raise ValueError(f"{who} cannot be exported: {type(error).__name__}: {textwrap.shorten(str(error), 300)}") from error
    written = io.BytesIO()
    torch.export.save(program, written)
    write_atomic(path, written.getvalue())


def _can(guard: Guard, specs: tuple[str, ...], images: Tensor) -> bool:
    try:
        _exported(guard, specs, images)
    except Exception:  # noqa: BLE001 - the exporter fails in any way
        return False
    return True


@torch.no_grad()
def _exported(guard: Guard, specs: tuple[str, ...], images: Tensor) -> torch.export.ExportedProgram:
    program = Program(guard, specs)
    program(images)  # scorers prepare what they keep
    with frozen(program), redirect_stderr(io.StringIO()):  # where the exporter prints the graph when it fails
        return torch.export.export(program, (images,), dynamic_shapes=({0: torch.export.Dim("n")},), strict=False)
