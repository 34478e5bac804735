"""What a trigger may do habitually, refused where it makes no sense."""

from __future__ import annotations


def check_sources(sources: tuple[int, ...]) -> None:
    """Refuse source classes that are none.

    Raises:
        ValueError: no source, or one under 0.
    """
    if not sources or min(sources) < 0:
        raise ValueError(f"sources must be one or more classes, at least 0, got {sources}")
