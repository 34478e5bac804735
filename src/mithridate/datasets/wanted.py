"""What a caller wants of images that come as they are: size, channels, class order, how many; and making them so."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from mithridate.checks import within
from mithridate.data import Samples

UNLABELED = "unlabeled"  # the one class of images that nobody labeled


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The form images are asked for in; None leaves that as it is.

    Attributes:
        size: (height, width) in pixels.
        channels: 1 or 3.
        classes: the model's class names, in the order of its outputs.
        limit: how many images, drawn at random and balanced over the classes.
        seed: of that draw.
        damaged: told the name of each image file that cannot be read, which is then left out; None refuses the whole set.

    Raises:
        ValueError: a value out of range, naming the field.
    """

    size: tuple[int, int] | None = None
    channels: int | None = None
    classes: tuple[str, ...] | None = None
    limit: int | None = None
    seed: int = 0
    damaged: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise ValueError(f"size must be (height, width), both positive, got {self.size}")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1 or 3, got {self.channels}")
        within(self, "[1, inf)", "limit")


def take(labels: Tensor, limit: int | None, seed: int) -> Tensor:
    """Sorted positions of `limit` samples, drawn at random, as many of each class as there are (all when `limit` is None).

    Args:
        labels: (n,) int64.
        limit: how many.
        seed: of the draw.

    Raises:
        ValueError: more are asked for than there are.
    """
    if limit is None:
        return torch.arange(len(labels))
    if limit > len(labels):
        raise ValueError(f"limit must be at most the {len(labels)} images there are, got {limit}")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    shuffled = labels[order]
    turn = torch.empty_like(order)
    for label in shuffled.unique():
        here = (shuffled == label).nonzero()[:, 0]
        turn[here] = torch.arange(len(here))
    # First one of every class, then a second one of every class, and so on.
    return order[turn.argsort(stable=True)[:limit]].sort().values


def match(names: Sequence[str], classes: Sequence[str], where: str) -> list[int]:
    """Which of `classes` each name means: by name, by name without regard to case or signs no folder can bear, or by number.

    Raises:
        ValueError: a name that is none of the classes.
    """
    folded = {name.casefold(): i for i, name in enumerate(safe_names(classes))}
    exact = {name: i for i, name in enumerate(classes)}
    found = []
    for name in names:
        number = int(name) if name.isdecimal() else len(classes)
        index = exact.get(name, folded.get(name.casefold(), number))
        if index >= len(classes):
            raise ValueError(f"classes has no {name!r}, which {where} holds; it has {_some(classes)}")
        found.append(index)
    return found


def safe_names(names: Sequence[str]) -> list[str]:
    """Names that can be folder names on any system: odd signs become underscores, and repeated names get a number."""
    safe: list[str] = []
    for name in names:
        plain = re.sub(r"[^\w .()+-]", "_", name).strip(". ") or "_"
        taken = {other.casefold() for other in safe}
        safe.append(plain if plain.casefold() not in taken else f"{plain}_{len(safe)}")
    return safe


def conform(samples: Samples, wanted: Wanted, where: str) -> Samples:
    """Samples in the wanted form. Sets that are already in it are returned as they are, without a copy.

    Raises:
        ValueError: classes that do not fit, or a limit above what there is.
    """
    if wanted.limit is not None:
        samples = samples[take(samples.labels, wanted.limit, wanted.seed)]
    if wanted.classes is not None:
        samples = _relabel(samples, wanted.classes, where)
    images = _resize(_recolor(samples.images, wanted.channels), wanted.size)
    return samples if images is samples.images else replace(samples, images=images)


def _relabel(samples: Samples, classes: tuple[str, ...], where: str) -> Samples:
    """Labels by the model's names; a set of as many classes but other names keeps its order, and one without labels stays so."""
    if samples.classes == (UNLABELED,):
        return replace(samples, classes=classes)
    if len(samples.classes) == len(classes) and not set(samples.classes) & set(classes):
        return replace(samples, classes=classes)
    index = torch.tensor(match(samples.classes, classes, where), dtype=torch.int64)
    return replace(samples, labels=index[samples.labels] if len(index) else samples.labels, classes=classes)


def _recolor(images: Tensor, channels: int | None) -> Tensor:
    if channels is None or images.shape[1] == channels:
        return images
    if channels == 3:
        return images.repeat(1, 3, 1, 1)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # ITU-R BT.601 luma, as Pillow's
    grey = (images.float() * weights).sum(1, keepdim=True)
    return grey.round_().to(torch.uint8) if images.dtype == torch.uint8 else grey.clamp_(0, 1).to(images.dtype)


def _resize(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    if size is None or tuple(images.shape[2:]) == size:
        return images
    resized = functional.interpolate(images.float(), size, mode="bilinear", antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8) if images.dtype == torch.uint8 else resized.clamp_(0, 1).to(images.dtype)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
