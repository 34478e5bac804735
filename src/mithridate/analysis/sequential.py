"""Wald's sequential probability ratio test of a rate, for many inputs at once: it stops as soon as the outcomes suffice.

After each outcome the evidence for `alternative` against `null` grows by the log of the ratio of what they give the outcome:
log(p1 / p0) if the event happened, log((1 - p1) / (1 - p0)) if not. At log((1 - beta) / alpha) the alternative is accepted, at
log(beta / (1 - alpha)) the null. Inputs whose rate is the null are then accused in at most a share alpha / (1 - beta) of all
cases and those whose rate is the alternative cleared in at most beta / (1 - alpha), and together the errors are at most
alpha + beta; since evidence jumps over the bounds, they are smaller in practice. Source: Wald, Annals of Mathematical
Statistics 1945, sections 3.2 to 3.4; Wang et al. (ICSE 2019) have the idea of testing label changes so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Walk:
    """Where tests stand after some outcomes; all fields have the tests' shape (...).

    Attributes:
        evidence: in nats for the alternative, when the test stopped or now.
        verdict: int8: 1 the alternative is accepted, -1 the null is, 0 undecided.
        steps: int64, outcomes looked at, the deciding one included.
    """

    evidence: Tensor
    verdict: Tensor
    steps: Tensor

    def __getitem__(self, rows: Tensor) -> Walk:
        """Some of the tests, by index or mask along the last dimension."""
        return Walk(self.evidence[..., rows], self.verdict[..., rows], self.steps[..., rows])


def bounds(alpha: float, beta: float) -> tuple[float, float]:
    """The evidence that accepts the null, negative, and the one that accepts the alternative, positive.

    Args:
        alpha: wanted share of accused inputs among those of the null rate.
        beta: wanted share of cleared inputs among those of the alternative rate.

    Raises:
        ValueError: rates that are not positive, or that add up to 1 or more.
    """
    if not (alpha > 0 and beta > 0 and alpha + beta < 1):
        raise ValueError(f"alpha and beta must be positive and add up to less than 1, got {alpha:g} and {beta:g}")
    return math.log(beta / (1 - alpha)), math.log((1 - beta) / alpha)


def gains(null: Tensor, alternative: Tensor) -> tuple[Tensor, Tensor]:
    """What the evidence (...) grows by if the event happens, and if it does not.

    Args:
        null: (...) rates in (0, 1).
        alternative: (...) other rates in (0, 1), above or below.

    Raises:
        ValueError: a rate outside, or two that are equal.
    """
    if not bool(((null > 0) & (null < 1) & (alternative > 0) & (alternative < 1) & (null != alternative)).all()):
        raise ValueError("null and alternative must hold rates in (0, 1) that differ")
    return (alternative / null).log(), ((1 - alternative) / (1 - null)).log()


def reachable(lower: Tensor, higher: Tensor, limits: tuple[float, float], most: int) -> tuple[Tensor, Tensor]:
    """Two rates (...), moved apart so far that `most` equal outcomes reach either limit, whichever of the two is the null.

    mMutant tests rates of 0.0112 and 0.0136 with 100 mutants, of which 1173 without a change would be needed.

    Args:
        lower: (...) rates in [0, 1], raised to half an outcome in `most` or lowered to leave room, where they must be.
        higher: (...) rates in [0, 1], raised where they are too close.
        limits: as `bounds` gives them.
        most: outcomes there can be, at least 1.
    """
    room = math.exp(-1.001 * max(-limits[0], limits[1]) / most)  # a little more, because sums are rounded
    least = 0.5 / most
    lower = lower.clamp(least * room, (1 - least) * room)
    return lower, torch.maximum(higher, torch.maximum(lower / room, 1 - (1 - lower) * room)).clamp(max=1 - least * room)


def walk(happened: Tensor, happens: Tensor, fails: Tensor, limits: tuple[float, float], before: Walk | None = None) -> Walk:
    """Test after each outcome, and stop each test at its first decision.

    Args:
        happened: (k, ...) bool, the next k outcomes; it may be broadcast to the tests' shape.
        happens: (...) the evidence gained by an event.
        fails: (...) the evidence gained by none.
        limits: as `bounds` gives them.
        before: where the tests stood after earlier outcomes; those that are decided stay as they are.
    """
    path = torch.where(happened, happens, fails).cumsum(0)
    path = path if before is None else path + before.evidence
    out = (path <= limits[0]) | (path >= limits[1])
    decided = out.any(0)
    last = torch.where(decided, out.int().argmax(0), len(happened) - 1)
    evidence = path.gather(0, last[None])[0]
    now = Walk(evidence, (evidence.sign() * decided).to(torch.int8), last + 1)
    if before is None:
        return now
    kept = before.verdict != 0
    steps = before.steps + torch.where(kept, 0, now.steps)
    return Walk(torch.where(kept, before.evidence, now.evidence), torch.where(kept, before.verdict, now.verdict), steps)


def walk_both(happened: Tensor, rates: Tensor, limits: tuple[float, float], before: Walk | None = None) -> Walk:
    """Two tests (2, n) of each of n inputs: is the rate below the usual one, and is it above.

    Args:
        happened: (k, n) bool, the next k outcomes.
        rates: (4, n) the rate far below the usual one, the usual one for the test below, the usual one for the test above, and
            the rate far above.
        limits: as `bounds` gives them.
        before: what the last call gave.
    """
    happens, fails = gains(rates[[1, 2]], rates[[0, 3]])
    return walk(happened[:, None], happens, fails, limits, before)


def settled(tests: Walk) -> Tensor:
    """The inputs (n,) bool whose two tests need no more outcomes: the rate is unusual on one side, or usual on both."""
    return (tests.verdict == 1).any(0) | (tests.verdict == -1).all(0)
