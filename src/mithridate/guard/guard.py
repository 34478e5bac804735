"""The guard: one forward pass answers, and says which inputs should not be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mithridate.calibrate import Threshold, p_values, threshold
from mithridate.crossfit import cross_scores
from mithridate.data import Samples, to_float
from mithridate.guard import archive
from mithridate.nn.modes import device_of
from mithridate.nn.scorers import TraceScorer
from mithridate.nn.taps import Trace, trace
from mithridate.roles import Detector, Progress, silent
from mithridate.spec import to_spec


@dataclass(frozen=True, eq=False)
class Answer:
    """What the guard says about a batch of n inputs.

    Attributes:
        logits: (n, classes) of the model, unchanged.
        flagged: (n,) bool, which inputs should be refused.
        p_values: (n,) in (0, 1], how unusual each is among clean inputs, over all detectors (Bonferroni).
        scores: detector -> (n,) suspicion, higher = more malicious.
    """

    logits: Tensor
    flagged: Tensor
    p_values: Tensor
    scores: dict[str, Tensor]

    def __repr__(self) -> str:
        return f"Answer({int(self.flagged.sum()):,} of {len(self.flagged):,} inputs flagged)"

    @property
    def predicted(self) -> Tensor:
        """Predicted classes (n,)."""
        return self.logits.argmax(1)


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

        Raises:
            ValueError: no detectors, or too few clean images for the false-positive rate asked for.
        """
        if not detectors:
            raise ValueError("detectors must hold at least one detector, got none")
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
        scores = {spec: scorer.score(seen) for spec, scorer in zip(self.specs, self.fitted(), strict=True)}
        flags = [self.threshold(spec).flag(score) for spec, score in scores.items()]
        tails = [p_values(score, clean) for score, clean in zip(scores.values(), self.calibration, strict=True)]
        combined = (torch.stack(tails).amin(0) * len(tails)).clamp(max=1)
        return Answer(seen.logits, torch.stack(flags).any(0), combined, scores)

    def answer(self, samples: Samples | Tensor, batch_size: int = 256) -> Answer:
        """Answer any number of images, gathered on the CPU."""
        images = samples.images if isinstance(samples, Samples) else samples
        device = device_of(self.model)
        parts = [self(to_float(batch.to(device))) for batch in images.split(batch_size)]
        scores = {spec: torch.cat([p.scores[spec].cpu() for p in parts]) for spec in self.specs}
        logits, flagged, tails = (torch.cat([getattr(p, name).cpu() for p in parts]) for name in ("logits", "flagged", "p_values"))
        return Answer(logits, flagged, tails, scores)

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

    def fitted(self) -> list[TraceScorer]:
        """The fitted scorers, in the order of `specs`."""
        return [scorer for scorer in self.scorers if isinstance(scorer, TraceScorer)]
