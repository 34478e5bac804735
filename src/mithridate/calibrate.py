"""Thresholds and p-values from clean scores that were not used in fitting: split conformal, so the asked rate holds for any detector.

Source: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005, sections 2.2 (conformal p-values) and 4.5
(one quantile per category, "Mondrian"). The only assumption: calibration and later clean scores are exchangeable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mithridate.checks import check_number


@dataclass(frozen=True, eq=False)
class Threshold:
    """A cut that clean inputs exceed at most at the rate `fpr`.

    Attributes:
        cut: () one threshold for all, or (classes,) one per predicted class.
        fpr: the false-positive rate it was made for, in (0, 1).
    """

    cut: Tensor
    fpr: float

    def flag(self, scores: Tensor, predicted: Tensor | None = None) -> Tensor:
        """Which scores (n,) lie above the threshold, as bool (n,); `predicted` (n,) classes are needed when there is one per class.

        Raises:
            ValueError: `scores` are not finite (n,), or `predicted` is missing, of another length or names an unknown class.
        """
        _check_scores("scores", scores)
        if not self.cut.ndim:
            return scores > self.cut.to(scores)
        return scores > self.cut.to(scores)[_check_predicted(predicted, scores, len(self.cut))]


def threshold(
    scores: Tensor, fpr: float, predicted: Tensor | None = None, *, classes: int | None = None, least: int | None = None
) -> Threshold:
    """The conformal upper quantile of clean scores: the ceil((n + 1)(1 - fpr))-th smallest.

    A new clean input scores above it with probability at most `fpr`, whatever the distribution. With `predicted`, each
    class that has enough samples gets its own quantile and the other classes share one: that of their own samples, or of
    all samples where their own are too few.

    Args:
        scores: (n,) scores of clean inputs that the detector was not fitted on.
        fpr: the false-positive rate asked for, in (0, 1).
        predicted: (n,) int64 predicted classes, for thresholds per class.
        classes: number of classes; the largest in `predicted` plus one when not given.
        least: samples a class needs for its own quantile; at least, and by default, 1 / fpr - 1, the fewest that can support one.

    Raises:
        ValueError: too few scores to support `fpr`, scores that are not finite, or another bad argument.
    """
    _check_scores("scores", scores)
    check_number("fpr", fpr, "(0, 1)")
    if len(scores) < needed(fpr):
        raise ValueError(f"scores: a false-positive rate of {fpr:g} needs at least {needed(fpr)} clean samples, got {len(scores)}")
    if predicted is None:
        return Threshold(_quantile(scores, fpr), fpr)
    classes = int(predicted.max()) + 1 if classes is None else classes
    predicted = _check_predicted(predicted, scores, classes)
    enough = torch.bincount(predicted, minlength=classes) >= max(least or 0, needed(fpr))
    rest = scores[~enough[predicted]]
    cut = _quantile(rest if len(rest) >= needed(fpr) else scores, fpr).repeat(classes)
    for label in enough.nonzero().flatten().tolist():
        cut[label] = _quantile(scores[predicted == label], fpr)
    return Threshold(cut, fpr)


def needed(fpr: float) -> int:
    """The fewest clean samples that support a false-positive rate: the smallest n with (n + 1) fpr >= 1."""
    return math.ceil(1 / fpr - 1 - 1e-9)


def p_values(scores: Tensor, clean_scores: Tensor) -> Tensor:
    """Conformal p-values (m,) in (0, 1]: (1 + how many clean scores are at least as high) / (n + 1).

    Args:
        scores: (m,) scores to judge.
        clean_scores: (n,) scores of clean inputs that the detector was not fitted on.

    Raises:
        ValueError: either is empty, not one-dimensional or not finite.
    """
    _check_scores("scores", scores)
    _check_scores("clean_scores", clean_scores)
    ordered = clean_scores.to(scores).sort().values
    above = len(ordered) - torch.searchsorted(ordered, scores.contiguous())
    return (1 + above) / (len(ordered) + 1)


def _quantile(scores: Tensor, fpr: float) -> Tensor:
    count = len(scores)
    above = math.floor((count + 1) * fpr + 1e-9)  # the tolerance forgives 100 * 0.07 = 7.000000000000001 and its like
    return scores.kthvalue(count + 1 - above).values


def _check_scores(name: str, scores: Tensor) -> None:
    if scores.ndim != 1 or not len(scores):
        raise ValueError(f"{name} must have shape (n,) with n > 0, got {tuple(scores.shape)}")
    if not bool(torch.isfinite(scores).all()):
        raise ValueError(f"{name} must be finite, got {int((~torch.isfinite(scores)).sum())} NaN or infinite values")


def _check_predicted(predicted: Tensor | None, scores: Tensor, classes: int) -> Tensor:
    if predicted is None:
        raise ValueError("predicted must be given, because there is one threshold per class, got None")
    if predicted.shape != scores.shape:
        raise ValueError(f"predicted must have shape {tuple(scores.shape)}, got {tuple(predicted.shape)}")
    if not 0 <= int(predicted.min()) <= int(predicted.max()) < classes:
        raise ValueError(f"predicted must lie in [0, {classes}), got [{int(predicted.min())}, {int(predicted.max())}]")
    return predicted.to(scores.device)
