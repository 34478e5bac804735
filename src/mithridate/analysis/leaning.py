"""How far a model leans to a label whatever it is shown, and what losses are without that.

A young model names one label for everything for a while, then another; and while it does, all samples of that label look easy. What
they are owed to is told by the samples of other labels in the same batch, whose odds for that label are as high.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mithridate.analysis.isolation import excess


def leaning(logits: Tensor, labels: Tensor) -> Tensor:
    """How many nats the model's log odds for each sample's label exceed those of guessing, in the median of the samples of other labels.

    Args:
        logits: (n, classes) of one batch, of one state of the model.
        labels: (n,) int64.

    Returns:
        (n,) at least 0, equal where labels are; 0 where the batch has no other label.
    """
    found, guessing = torch.zeros(len(labels), dtype=logits.dtype, device=logits.device), math.log(max(1, logits.shape[1] - 1))
    for label in labels.unique():
        others = labels != label
        if bool(others.any()):
            odds = excess(logits[others], label.expand(int(others.sum())))
            found[~others] = (guessing - odds.median()).clamp_min(0)
    return found


def impartial_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy (n,) of logits (n, classes) under labels (n,), had the model not leaned to them: at least the plain one."""
    return softplus(excess(logits, labels) + leaning(logits, labels))
