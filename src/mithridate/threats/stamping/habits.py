"""What a trigger may do habitually, refused where it makes no sense."""

from __future__ import annotations


def check_sources(sources: tuple[int, ...]) -> None:
    """Refuse source classes that are none.

    Raises:
        ValueError: no source, or one under 0.
    """
    if not sources or min(sources) < 0:
        raise ValueError(f"sources must be one or more classes, at least 0, got {sources}")


def check_cover_ratio(cover_ratio: float) -> None:
    """Refuse a number of covers per poisoned sample that cannot be.

    Raises:
        ValueError: under 0, or not finite.
    """
    if not 0 <= cover_ratio < float("inf"):
        raise ValueError(f"cover_ratio must be finite and at least 0, got {cover_ratio}")
