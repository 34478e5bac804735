"""Scores of clean images by scorers that did not see them, so that every clean image both teaches and calibrates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mithridate.checks import check_number
from mithridate.data import Samples
from mithridate.nn.modes import device_of
from mithridate.nn.scorers import TraceScorer
from mithridate.nn.taps import Remembered, remembered, trace_all
from mithridate.roles import Detector, Progress, Scorer, silent


@torch.no_grad()
def score_all(scorer: Scorer, samples: Samples, device: torch.device, batch_size: int = 256) -> Tensor:
    """A fitted scorer's suspicion of every sample (n,), on the CPU."""
    if isinstance(samples, Remembered) and isinstance(scorer, TraceScorer):
        seen = trace_all(scorer.model, samples, scorer.layers)
        return torch.cat([scorer.score(part).float().cpu() for part in seen.batches(batch_size, device)])
    return torch.cat([scorer(images.to(device)).float().cpu() for images, _ in samples.batches(batch_size)])


def cross_scores(
    detector: Detector, model: nn.Module, clean: Samples, *, folds: int = 5, seed: int = 0, progress: Progress = silent
) -> Tensor:
    """Scores (n,) of clean images, each by a scorer fitted on the other folds; what thresholds are calibrated on.

    A scorer fitted on all of `clean` knows slightly more than those of the folds, so the false-positive rate holds closely, not
    exactly (cross-conformal prediction; Vovk, Annals of Mathematics and AI 2015, section 2). What the fits read of the model is
    computed once for all folds.

    Args:
        detector: refitted `folds` times.
        model: the protected model.
        clean: n samples.
        folds: disjoint parts, at least 2.
        seed: of the parts and of every fit.
        progress: passed on to the fits.

    Raises:
        ValueError: fewer than two folds, or fewer samples than folds.
    """
    check_number("folds", folds, f"[2, {len(clean)}]")
    scores, clean = torch.zeros(len(clean)), remembered(model, clean)
    order = torch.randperm(len(clean), generator=torch.Generator().manual_seed(seed))
    for held in order.tensor_split(folds):
        others = torch.ones(len(clean), dtype=torch.bool)
        others[held] = False
        scorer = detector.fit(model, clean[others], seed=seed, progress=progress)
        scores[held] = score_all(scorer, clean[held], device_of(model))
    return scores
