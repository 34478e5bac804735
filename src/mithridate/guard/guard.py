"""The guard: one forward pass answers, and says which inputs should not be believed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mithridate.calibrate import Threshold, p_values, threshold
from mithridate.crossfit import cross_scores
from mithridate.data import Samples, to_float
from mithridate.guard import archive, export
from mithridate.nn.modes import device_of
from mithridate.nn.scorers import TraceScorer
from mithridate.nn.taps import Trace, trace
from mithridate.roles import Detector, Progress, silent
from mithridate.spec import to_spec

MOST = 10_000  # clean images that a guard is fitted on
NOTABLE = 0.05  # p-values up to here are told among the reasons


@dataclass(frozen=True, eq=False)
class Answer:
    """What the guard says about a batch of n inputs.

    Attributes:
        logits: (n, classes) of the model, unchanged.
        flagged: (n,) bool, which inputs should be refused.
        p_values: (n,) in (0, 1], how unusual each is among clean inputs, over all detectors (Bonferroni).
        scores: detector -> (n,) suspicion, higher = more malicious.
        tails: detector -> (n,) in (0, 1], how unusual each input is to it alone.
        members: detector -> the same of each detector that it is made of; empty for most, filled for `unified`.
    """

    logits: Tensor
    flagged: Tensor
    p_values: Tensor
    scores: dict[str, Tensor]
    tails: dict[str, Tensor]
    members: dict[str, dict[str, Tensor]]

    def __repr__(self) -> str:
        return f"Answer({int(self.flagged.sum()):,} of {len(self.flagged):,} inputs flagged)"

    @property
    def predicted(self) -> Tensor:
        """Predicted classes (n,)."""
        return self.logits.argmax(1)

    @property
    def reasons(self) -> tuple[str, ...]:
        """For each of the n inputs, which detectors find it how unusual, in words; empty where it is not flagged."""
        voices = {name: p for spec, own in self.tails.items() for name, p in (self.members[spec] or {spec: own}).items()}
        table = torch.stack(list(voices.values()), 1).tolist()
        return tuple(
            _reason(dict(zip(voices, row, strict=True))) if flag else "" for row, flag in zip(table, self.flagged.tolist(), strict=True)
        )


def _reason(voices: Mapping[str, float]) -> str:
    """`at most 1 in 1,001 clean inputs is as unusual to kde, 1 in 60 to lid`: the strongest voice, and others worth a word."""
    first, *rest = sorted(voices.items(), key=lambda voice: voice[1])
    said = [f"at most 1 in {round(1 / first[1]):,} clean inputs is as unusual to {first[0]}"]
    return ", ".join(said + [f"1 in {round(1 / p):,} to {name}" for name, p in rest if p <= NOTABLE])


class Guard(nn.Module):
    """A model, its fitted detectors and their thresholds.

    Each of k detectors is held to fpr / k, so that together they refuse at most a share `fpr` of clean inputs.

    Args:
        model: the protected model; referenced, not copied.
        scorers: specification of each detector -> its fitted scorer.
        calibration: specification -> (m,) its scores on clean images that it was not fitted on.
        fpr: the false-positive rate asked for, in (0, 1).
    """

    def __init__(self, model: nn.Module, scorers: Mapping[str, TraceScorer], calibration: Mapping[str, Tensor], fpr: float) -> None:
        super().__init__()
        self.model, self.fpr, self.specs = model, fpr, tuple(scorers)
        self.scorers = nn.ModuleList(scorers.values())
        self.calibration = nn.ParameterList([nn.Parameter(calibration[s], requires_grad=False) for s in self.specs])
        self.layers = tuple(dict.fromkeys(layer for scorer in scorers.values() for layer in scorer.layers))

    def __repr__(self) -> str:
        return f"Guard({type(self.model).__name__}, {' + '.join(self.specs)}, fpr {self.fpr:g})"

    @classmethod
    def fit(
        cls,
        model: nn.Module,
        detectors: Sequence[Detector],
        clean: Samples,
        *,
        fpr: float = 0.01,
        seed: int = 0,
        progress: Progress = silent,
    ) -> Guard:
        """Fit every detector on `clean` images and set its threshold on the same ones, by scorers that did not see them.

        Of more than 10,000 images so many are drawn at random from `seed`, and the others not read: they support any rate from
        1 in 10,000 on, and neither time nor memory grows with their number.

        Raises:
            ValueError: no detectors, or too few clean images for the false-positive rate asked for.
        """
        if not detectors:
            raise ValueError("detectors must hold at least one detector, got none")
        if len(clean) > MOST:
            chosen = torch.randperm(len(clean), generator=torch.Generator().manual_seed(seed))[:MOST].sort().values
            clean = clean[chosen.to(clean.labels.device)]
        scorers, calibration = {}, {}
        for detector in detectors:
            spec, scorer = to_spec(detector), detector.fit(model, clean, seed=seed, progress=progress)
            if not isinstance(scorer, TraceScorer):
                raise ValueError(f"detector {spec!r} must give a TraceScorer, got {type(scorer).__name__}")
            scorers[spec], calibration[spec] = scorer, cross_scores(detector, model, clean, seed=seed)
        guard = cls(model, scorers, calibration, fpr)
        for spec in guard.specs:
            guard.threshold(spec)
        return guard

    def threshold(self, spec: str) -> Threshold:
        """The threshold of one detector.

        Raises:
            ValueError: too few calibration scores for the false-positive rate asked for.
        """
        return threshold(self.calibration[self.specs.index(spec)], self.fpr / len(self.specs))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Answer:
        """Answer a batch of float images (n, c, h, w) in [0, 1]: one pass of the model serves every detector."""
        seen: Trace = trace(self.model, images, self.layers)
        told = {spec: scorer.explained(seen) for spec, scorer in zip(self.specs, self.fitted(), strict=True)}
        flags = [self.threshold(spec).flag(score) for spec, (score, _) in told.items()]
        tails = {spec: p_values(told[spec][0], clean) for spec, clean in zip(self.specs, self.calibration, strict=True)}
        return Answer(
            logits=seen.logits,
            flagged=torch.stack(flags).any(0),
            p_values=(torch.stack(list(tails.values())).amin(0) * len(tails)).clamp(max=1),
            scores={spec: score for spec, (score, _) in told.items()},
            tails=tails,
            members={spec: members for spec, (_, members) in told.items()},
        )

    def answer(self, samples: Samples | Tensor, batch_size: int = 256) -> Answer:
        """Answer any number of images, gathered on the CPU."""
        images = samples.images if isinstance(samples, Samples) else samples
        device = device_of(self.model)
        parts = [self(to_float(batch.to(device))) for batch in images.split(batch_size)]
        return Answer(**{field.name: _joined([getattr(part, field.name) for part in parts]) for field in fields(Answer)})

    def save(self, folder: Path) -> None:
        """Write the guard, without the model, into a folder: `guard.safetensors` and `guard.toml`."""
        archive.save(self, folder)

    @classmethod
    def load(cls, folder: Path, model: nn.Module) -> Guard:
        """The guard that `save` wrote, around the model it was fitted on.

        Raises:
            BadFile: missing, damaged, of another format, two files that do not belong together, or a guard of another model.
        """
        return cls(model, *archive.load(folder, model))

    def export(self, path: str | os.PathLike[str], images: Tensor) -> None:
        """Write the model, its detectors and their thresholds as one `torch.export` program, which needs nothing of this package.

        It takes float images (n, c, h, w) of any number n, and gives a dictionary with `logits` (n, classes), `predicted` (n,),
        `scores` and `tails` (n, detectors), p-values of each, and `flagged` (n,), which is also true where a score is not a number.

        Args:
            path: of the file, `.pt2` by custom.
            images: at least two like those to come, float (n, c, h, w) in [0, 1] on the model's device.

        Raises:
            ValueError: the model or a detector does what `torch.export` cannot follow, or there are fewer than two images.
        """
        export.export(self, Path(path), images)

    def fitted(self) -> list[TraceScorer]:
        """The fitted scorers, in the order of `specs`."""
        return [scorer for scorer in self.scorers if isinstance(scorer, TraceScorer)]


def _joined(parts: Sequence[Any]) -> Any:
    """Tensors, or dictionaries of them, of consecutive batches as one, on the CPU."""
    if isinstance(parts[0], Mapping):
        return {name: _joined([part[name] for part in parts]) for name in parts[0]}
    return torch.cat([part.cpu() for part in parts])
