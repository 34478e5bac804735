"""Judging a screen: does it rank the poisoned training images first, and what does an automatic cut find?"""

from __future__ import annotations

import torch

from mithridate import metrics
from mithridate.analysis.outliers_1d import suspicious
from mithridate.bench.judgments.case import Case, Finding, share
from mithridate.bench.victims import training_set

TOP = 0.01  # share of the training set that a defender might throw away without a look


def screening(case: Case) -> Finding:
    """A screen on the training set that the victim was made from."""
    found, (data, truth) = Finding(), training_set(case.victim, case.config)
    with found.timed(case):
        scores = case.defense.screen(case.victim.model, data, seed=case.seed, progress=case.progress).cpu()
    poisoned = torch.zeros(len(data), dtype=torch.bool) if truth is None else truth.poisoned.cpu()
    flagged = suspicious(scores - scores.min(), data.labels.cpu())
    found.metrics = {"fpr": share(flagged[~poisoned])}
    if bool(poisoned.any()):
        top = scores.argsort(descending=True)[: max(1, round(TOP * len(scores)))]
        found.metrics |= {
            "auroc": metrics.auroc(scores, poisoned),
            "tpr": share(flagged[poisoned]),
            "precision_top": share(poisoned[top]),
        }
    return found
