"""The nouns that flow through everything: `Samples`, all that a defender ever sees, and `Truth`, for the judge only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """Images as floats in [0, 1].

    Args:
        images: (n, c, h, w); uint8 in [0, 255], or floating point already in [0, 1], which passes through.

    Raises:
        ValueError: another dtype.
    """
    if images.is_floating_point():
        return images
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8 or floating point, got {images.dtype}")
    return images.float().div_(255)


def to_uint8(images: Tensor) -> Tensor:
    """Images as uint8 in [0, 255]: clipped first, then rounded, so that nothing wraps around."""
    if images.dtype == torch.uint8:
        return images
    return images.clamp(0, 1).mul_(255).round_().to(torch.uint8)


@dataclass(frozen=True, eq=False)
class Samples:
    """Images and labels: all that a defender ever sees.

    Attributes:
        images: (n, c, h, w); uint8, or float in [0, 1]. May be backed by a memory map; nothing here copies it whole.
        labels: (n,) int64 in [0, number of classes).
        classes: class names, in the order of the labels; numbered names when not given.
        names: where each image came from (file names), or empty.

    Raises:
        ValueError: a wrong shape, dtype, range or label, naming the field and the value.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...] = ()
    names: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        _check_images(self.images)
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels must have shape ({len(self.images)},), got {tuple(self.labels.shape)}")
        if self.labels.dtype != torch.int64:
            raise ValueError(f"labels must be int64, got {self.labels.dtype}")
        if not self.classes:
            count = int(self.labels.max()) + 1 if len(self.labels) else 0
            object.__setattr__(self, "classes", tuple(str(i) for i in range(count)))
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            bad = int(self.labels.max()) if int(self.labels.min()) >= 0 else int(self.labels.min())
            raise ValueError(f"labels must lie in [0, {len(self.classes)}), got {bad}")
        if self.names and len(self.names) != len(self.images):
            raise ValueError(f"names must be empty or hold {len(self.images)} names, got {len(self.names)}")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        channels, height, width = self.images.shape[1:]
        return f"Samples({len(self):,} images, {channels}x{height}x{width} {self.images.dtype}, {len(self.classes)} classes)"

    def __getitem__(self, index: Tensor | slice | Sequence[int]) -> Samples:
        """The chosen samples, by mask, index tensor or slice."""
        if not isinstance(index, slice):
            index = torch.as_tensor(index, device=self.labels.device)
        names = self.names
        if names:
            positions = torch.arange(len(self))[index.cpu() if isinstance(index, Tensor) else index]
            names = tuple(names[i] for i in positions.tolist())
        return replace(self, images=self.images[index], labels=self.labels[index], names=names)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Consecutive batches of at most `size`: float images in [0, 1] and their labels."""
        for start in range(0, len(self), size):
            yield to_float(self.images[start : start + size]), self.labels[start : start + size]

    def split(self, *sizes: int, seed: int) -> tuple[Samples, ...]:
        """Disjoint random parts of the given sizes, and the rest as the last part.

        Raises:
            ValueError: the sizes add up to more than there is.
        """
        if sum(sizes) > len(self):
            raise ValueError(f"sizes must add up to at most {len(self)}, got {sizes}")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return tuple(self[part] for part in order.split([*sizes, len(self) - sum(sizes)]))

    def to(self, device: torch.device | str) -> Samples:
        """The same samples on another device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


def _check_images(images: Tensor) -> None:
    if images.ndim != 4:
        raise ValueError(f"images must have shape (n, c, h, w), got {tuple(images.shape)}")
    if images.shape[1] not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels, got {images.shape[1]}")
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise ValueError(f"images must be uint8 or floating point, got {images.dtype}")
    if images.numel() and not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError(f"images must lie in [0, 1], got [{float(images.min()):g}, {float(images.max()):g}]")


@dataclass(frozen=True, eq=False)
class Truth:
    """What the attacker did. Only the judge reads it; no defense takes it as an argument.

    Attributes:
        poisoned: (n,) bool, which training samples are malicious.
        labels: (n,) int64, the original labels.
        target: the attacker's class, or for each class the one that its triggered images lead to.
        trigger: the trigger's specification, as in `badnets:size=3`.
        covers: (n,) bool, which samples carry a trigger but keep their label; None for none.
        sources: the only classes whose images the trigger works on; empty for all.
    """

    poisoned: Tensor
    labels: Tensor
    target: int | tuple[int, ...]
    trigger: str
    covers: Tensor | None = None
    sources: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"Truth({int(self.poisoned.sum()):,} of {len(self.poisoned):,} poisoned, target {self.target}, {self.trigger})"
