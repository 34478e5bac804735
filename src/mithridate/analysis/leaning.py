"""How far a model leans to a label whatever it is shown, and what losses are without that.

A young model names one label for everything for a while, then another; and while it does, all samples of that label look easy. What
they owe to that is told by the samples of other labels in the same batch, whose odds for that label are as high.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mithridate.analysis.isolation import excess


def leaning(logits: Tensor, labels: Tensor) -> Tensor:
    """How many nats the log odds of each sample's label exceed those of guessing, in the median of the batch's samples of other labels.

    Args:
        logits: (n, classes) of one batch, of one state of the model.
        labels: (n,) int64.

    Returns:
        (n,) finite and at least 0, equal where labels are; 0 where the batch has no other label.
    """
    logs = F.log_softmax(logits, 1).clamp_max(-torch.finfo(logits.dtype).eps)  # so that odds are finite
    against = torch.log(-torch.expm1(logs)) - logs
    own = F.one_hot(labels, logits.shape[1]).bool()
    middle = against.masked_fill(own, torch.nan).nanmedian(0).values
    return (math.log(max(1, logits.shape[1] - 1)) - middle).clamp_min(0).nan_to_num(0)[labels]


def impartial_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy (n,) of logits (n, classes) under labels (n,), had the model not leaned to them: at least the plain one."""
    return F.softplus(excess(logits, labels) + leaning(logits, labels))
