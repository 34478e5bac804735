"""What is odd about a set of images that nobody vouches for, in sentences for whoever is about to learn from it."""

from __future__ import annotations

from collections.abc import Sequence

from mithridate.data import Samples

FEW = 10  # images below which little can be said of a class
UNEVEN = 10  # times as many images in the largest class as in the smallest
NAMED = 8  # files or classes that are named


def remarks(samples: Samples, damaged: Sequence[str] = ()) -> tuple[str, ...]:
    """Unreadable files, a single class, classes with few images or none, and classes of very different sizes; usually nothing.

    Args:
        samples: the images that could be read.
        damaged: names of the files that could not.
    """
    counts = samples.labels.cpu().bincount(minlength=len(samples.classes)).tolist()
    sizes = sorted((count, name) for name, count in zip(samples.classes, counts, strict=True) if count)
    found = []
    if damaged:
        found.append(f"{_plural(len(damaged), 'file')} left out that cannot be read as images: {_some(damaged)}")
    if len(sizes) == 1:
        found.append(f"one class only, {sizes[0][1]}: there is nothing to tell apart")
    empty = [name for name, count in zip(samples.classes, counts, strict=True) if not count]
    if empty and sizes:
        found.append(f"no image of {_some(empty)}")
    few = [f"{name} ({count})" for count, name in sizes if count < FEW]
    if few:
        found.append(f"fewer than {FEW} images of {_some(few)}: too few to learn them, or to say which of them stand out")
    if sizes and sizes[-1][0] >= UNEVEN * sizes[0][0]:
        (least, small), (most, large) = sizes[0], sizes[-1]
        found.append(f"uneven classes, from {least:,} ({small}) to {most:,} ({large}) images: rarity may look suspicious")
    return tuple(found)


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
