"""What the fields of methods and settings may hold, and one wording for what they may not: `steps must be at least 1, got 0`."""

from __future__ import annotations

import re
from collections.abc import Sequence

INTERVAL = re.compile(r"([\[(])(\S+), (\S+)([\])])")


def within(owner: object, interval: str, *names: str) -> None:
    """Refuse an object's fields that lie outside an interval.

    Args:
        owner: whatever has the fields.
        interval: as for `check_number`.
        names: of the fields.

    Raises:
        ValueError: as `check_number` does.
    """
    for name in names:
        check_number(name, getattr(owner, name), interval)


def check_number(name: str, value: float | None, interval: str) -> None:
    """Refuse a number outside an interval; NaN lies in none.

    Args:
        name: of the field or argument.
        value: the number; None, which leaves it open, passes.
        interval: as `[1, inf)` or `(0, 0.5]`: a square bracket takes its bound in, a round one does not.

    Raises:
        ValueError: a number outside, or a text that is no interval.
    """
    parts = INTERVAL.fullmatch(interval)
    if parts is None:
        raise ValueError(f"interval must look like [1, inf) or (0, 0.5], got {interval!r}")
    low, high = float(parts[2]), float(parts[3])
    if value is None:
        return
    above = value >= low if parts[1] == "[" else value > low  # both false for NaN
    below = value <= high if parts[4] == "]" else value < high
    if not (above and below):
        raise ValueError(f"{name} must {_in_words(*parts.groups(), whole=isinstance(value, int))}, got {value}")


def one_of(owner: object, known: Sequence[str], *names: str) -> None:
    """Refuse an object's fields that are none of the known choices, of which there are at least two.

    Raises:
        ValueError: another choice.
    """
    *others, last = map(repr, known)
    for name in names:
        if getattr(owner, name) not in known:
            raise ValueError(f"{name} must be {', '.join(others)} or {last}, got {getattr(owner, name)!r}")


def _in_words(opening: str, low: str, high: str, closing: str, *, whole: bool) -> str:
    """What a number must do; that it must be finite goes without saying for whole ones."""
    if high != "inf" or (opening == "(" and low != "0"):
        return f"lie in {opening}{low}, {high}{closing}"
    bound = f"be at least {low}" if opening == "[" else "be positive"
    return bound if whole or closing == "]" else f"{bound} and finite"
