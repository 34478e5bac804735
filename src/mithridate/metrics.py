"""The numbers of a benchmark, as pure functions of tensors: what the judge computes and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mithridate.calibrate import threshold
from mithridate.checks import check_number


@dataclass(frozen=True)
class Rate:
    """A share of `of` cases, `hits` of them."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        """The share, in [0, 1]."""
        return self.hits / self.of

    @property
    def interval(self) -> tuple[float, float]:
        """Its exact 95 % interval (Clopper-Pearson)."""
        return clopper_pearson(self.hits, self.of)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.1%} [{low:.1%}, {high:.1%}] of {self.of:,}"


def accuracy(predicted: Tensor, labels: Tensor) -> Rate:
    """Clean accuracy: the share of predicted classes (n,) equal to the labels (n,).

    Raises:
        ValueError: shapes differ, or nothing was predicted.
    """
    _check_pair("predicted", predicted, "labels", labels)
    return _rate(predicted == labels)


def attack_success_rate(predicted: Tensor, labels: Tensor, target: int | Tensor) -> Rate:
    """ASR: the share of triggered images, those truly of the target class left out, that are given the target.

    Args:
        predicted: (n,) classes predicted for triggered images.
        labels: (n,) their true classes.
        target: the attacker's class, or (n,) a class per image (all-to-all).

    Raises:
        ValueError: shapes differ, or every image is of the target class.
    """
    others = _off_target(predicted, labels, target)
    return _rate((predicted == target)[others])


def robust_accuracy(predicted: Tensor, labels: Tensor, target: int | Tensor) -> Rate:
    """Share of triggered images, those truly of the target class left out, given their true class (BackdoorBench's "RA").

    Args and errors as for `attack_success_rate`.
    """
    others = _off_target(predicted, labels, target)
    return _rate((predicted == labels)[others])


def defense_effectiveness(accuracy_before: float, asr_before: float, accuracy_after: float, asr_after: float) -> float:
    """DER in [0, 1]: (max(0, fall in ASR) - max(0, fall in accuracy) + 1) / 2; one half means nothing gained.

    All arguments are shares in [0, 1]. Source: Zhu et al., "Enhancing Fine-Tuning Based Backdoor Defense with
    Sharpness-Aware Minimization", ICCV 2023; used by BackdoorBench.

    Raises:
        ValueError: an argument outside [0, 1].
    """
    given = {"accuracy_before": accuracy_before, "asr_before": asr_before, "accuracy_after": accuracy_after, "asr_after": asr_after}
    for name, value in given.items():
        check_number(name, value, "[0, 1]")
    return (max(0.0, asr_before - asr_after) - max(0.0, accuracy_before - accuracy_after) + 1) / 2


def auroc(scores: Tensor, malicious: Tensor) -> float:
    """Chance in [0, 1] that a malicious sample scores above a clean one, ties counted half: the exact Mann-Whitney statistic.

    Args:
        scores: (n,) finite, higher = more malicious.
        malicious: (n,) bool.

    Raises:
        ValueError: shapes differ, scores are not finite, or all samples are of one kind.
    """
    _check_pair("scores", scores, "malicious", malicious)
    _check_both_kinds(malicious)
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("scores must be finite, got NaN or infinity")
    bad, good = scores[malicious].contiguous(), scores[~malicious].sort().values
    below = torch.searchsorted(good, bad).sum()
    at_most = torch.searchsorted(good, bad, right=True).sum()
    return int(below + at_most) / (2 * len(bad) * len(good))


def detection_rate(scores: Tensor, clean_scores: Tensor, fpr: float) -> Rate:
    """TPR of malicious `scores` (n,) at the threshold calibrated on held-out `clean_scores` (m,) for the rate `fpr`.

    Raises:
        ValueError: as for `calibrate.threshold` and `Threshold.flag`.
    """
    return _rate(threshold(clean_scores, fpr).flag(scores))


def true_positive_rate(flagged: Tensor, malicious: Tensor) -> Rate:
    """Recall: the share of malicious samples that were flagged; both are bool (n,).

    Raises:
        ValueError: shapes differ, or no sample is malicious.
    """
    _check_pair("flagged", flagged, "malicious", malicious)
    if not bool(malicious.any()):
        raise ValueError("malicious must hold at least one True, got none")
    return _rate(flagged[malicious])


def false_positive_rate(flagged: Tensor, malicious: Tensor) -> Rate:
    """The share of clean samples that were flagged; both are bool (n,).

    Raises:
        ValueError: shapes differ, or every sample is malicious.
    """
    _check_pair("flagged", flagged, "malicious", malicious)
    if bool(malicious.all()):
        raise ValueError("malicious must hold at least one False, got none")
    return _rate(flagged[~malicious])


def precision(flagged: Tensor, malicious: Tensor) -> Rate:
    """The share of flagged samples that are malicious; both are bool (n,).

    Raises:
        ValueError: shapes differ, or nothing was flagged.
    """
    _check_pair("flagged", flagged, "malicious", malicious)
    if not bool(flagged.any()):
        raise ValueError("flagged must hold at least one True, got none")
    return _rate(malicious[flagged])


def f1(flagged: Tensor, malicious: Tensor) -> float:
    """Harmonic mean of precision and recall in [0, 1], 2 TP / (2 TP + FP + FN); 0 when nothing was flagged.

    Raises:
        ValueError: shapes differ, or no sample is malicious.
    """
    hits = true_positive_rate(flagged, malicious).hits
    return 2 * hits / int(flagged.sum() + malicious.sum())


def clopper_pearson(hits: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """Exact confidence interval of a proportion.

    Source: Clopper and Pearson, Biometrika 1934; found by bisection on the binomial tails.

    Args:
        hits: number of successes.
        of: number of trials.
        level: confidence, in (0, 1).

    Raises:
        ValueError: `of` is not positive, `hits` is outside [0, of], or `level` is outside (0, 1).
    """
    check_number("of", of, "[1, inf)")
    check_number("hits", hits, f"[0, {of}]")
    check_number("level", level, "(0, 1)")
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else 1 - _upper_limit(of - hits, of, tail)
    return low, 1.0 if hits == of else _upper_limit(hits, of, tail)


def binomial_tail(hits: int, of: int, rate: float) -> float:
    """Probability of `hits` or more successes in `of` independent trials of probability `rate`.

    Raises:
        ValueError: `hits` is outside [0, of], or `rate` is outside (0, 1).
    """
    check_number("hits", hits, f"[0, {of}]")
    check_number("rate", rate, "(0, 1)")
    k = torch.arange(hits, of + 1, dtype=torch.float64)
    ways = math.lgamma(of + 1) - torch.lgamma(k + 1) - torch.lgamma(of - k + 1)
    return min(1.0, float((ways + k * math.log(rate) + (of - k) * math.log1p(-rate)).logsumexp(0).exp()))


def _upper_limit(hits: int, of: int, tail: float) -> float:
    """The p at which `hits` or fewer successes have probability `tail`."""
    k = torch.arange(hits + 1, dtype=torch.float64)
    ways = math.lgamma(of + 1) - torch.lgamma(k + 1) - torch.lgamma(of - k + 1)
    low, high = 0.0, 1.0
    for _ in range(60):
        p = (low + high) / 2
        mass = float((ways + k * math.log(p) + (of - k) * math.log1p(-p)).logsumexp(0).exp())
        low, high = (p, high) if mass > tail else (low, p)
    return (low + high) / 2


def _rate(hits: Tensor) -> Rate:
    return Rate(int(hits.sum()), len(hits))


def _off_target(predicted: Tensor, labels: Tensor, target: int | Tensor) -> Tensor:
    _check_pair("predicted", predicted, "labels", labels)
    others: Tensor = labels != target
    if not bool(others.any()):
        raise ValueError(f"labels must hold a class other than the target, got only {target}")
    return others


def _check_pair(first: str, a: Tensor, second: str, b: Tensor) -> None:
    if a.ndim != 1 or not len(a):
        raise ValueError(f"{first} must have shape (n,) with n > 0, got {tuple(a.shape)}")
    if a.shape != b.shape:
        raise ValueError(f"{second} must have shape {tuple(a.shape)}, got {tuple(b.shape)}")


def _check_both_kinds(malicious: Tensor) -> None:
    if malicious.dtype != torch.bool:
        raise ValueError(f"malicious must be bool, got {malicious.dtype}")
    if bool(malicious.all()) or not bool(malicious.any()):
        raise ValueError(f"malicious must hold both True and False, got only {bool(malicious[0])}")
