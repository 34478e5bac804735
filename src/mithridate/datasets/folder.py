"""Class folders (`daisy/1.jpg`) or a flat folder of images, on disk or zipped; sets larger than memory go through a memory map."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import TypeVar

import torch
from torch import Tensor

from mithridate.data import Samples
from mithridate.datasets.listing import Listing
from mithridate.datasets.memmap import open_memmap, write_memmap
from mithridate.datasets.pixels import SUFFIXES, decode, look
from mithridate.datasets.root import cache_folder
from mithridate.datasets.wanted import UNLABELED, Wanted, match, take
from mithridate.errors import BadFile, MissingData, UnsafeFile
from mithridate.roles import Progress, silent

RESIDENT_BYTES = 4 * 2**30  # decoded sets above this are memory-mapped
_PART = 256
_Answer = TypeVar("_Answer")


def read(listing: Listing, wanted: Wanted, progress: Progress = silent) -> Samples:
    """Images of class folders, labeled by their top folder, or of a flat folder, all labeled 0.

    Args:
        listing: the files; what is no image by its suffix is passed over.
        wanted: size, channels, classes and limit.
        progress: called while images are decoded.

    Returns:
        uint8 samples with relative paths as names; classes in the wanted order, else sorted as text like torchvision's ImageFolder.

    Raises:
        MissingData: no image at all.
        BadFile, UnsafeFile: a damaged image or one that is too large, unless those are to be left out; nothing else is left then;
            or images both in and beside class folders.
        ValueError: sizes differ and none is wanted, or a folder is not among the wanted classes.
    """
    names, labels, classes = _find(listing, wanted)
    keep = take(labels, wanted.limit, wanted.seed)
    plan = _Plan(listing, [names[i] for i in keep.tolist()], labels[keep], classes, wanted)
    shape = plan.shape()
    parts = plan.parts(shape, progress)
    if len(plan.names) * shape[0] * shape[1] * shape[2] > RESIDENT_BYTES:
        folder = cache_folder("decoded", plan.key(shape))
        if not folder.exists():
            write_memmap(parts, folder)
        return plan.told(open_memmap(folder))
    images = torch.empty((len(plan.names), shape[2], *shape[:2]), dtype=torch.uint8)
    labels, readable = torch.empty(len(images), dtype=torch.int64), list[str]()
    for part in parts:
        here = slice(len(readable), len(readable) + len(part))
        images[here], labels[here] = part.images, part.labels
        readable += part.names
    if not readable:
        raise plan.unreadable()
    return plan.told(Samples(images[: len(readable)], labels[: len(readable)], classes, tuple(readable)))


def images_in(listing: Listing) -> tuple[str, ...]:
    """The names that look like images."""
    return tuple(name for name in listing.names if PurePosixPath(name).suffix.lower() in SUFFIXES)


def _find(listing: Listing, wanted: Wanted) -> tuple[tuple[str, ...], Tensor, tuple[str, ...]]:
    """Names, labels (n,) and classes."""
    names = images_in(listing)
    if not names:
        raise MissingData(f"{listing.where} holds no images ({', '.join(sorted(SUFFIXES))})")
    flat = [name for name in names if "/" not in name]
    if flat and len(flat) < len(names):
        raise BadFile(f"{listing.where} holds images both in class folders and beside them ({flat[0]})")
    if flat:
        return names, torch.zeros(len(names), dtype=torch.int64), wanted.classes or (UNLABELED,)
    tops = [name.partition("/")[0] for name in names]
    folders = sorted(set(tops))
    classes = wanted.classes or tuple(folders)
    index = dict(zip(folders, match(folders, classes, listing.where), strict=True))
    return names, torch.tensor([index[top] for top in tops]), classes


@dataclass(frozen=True, eq=False)
class _Plan:
    """Which images are to be decoded, and how."""

    listing: Listing
    names: Sequence[str]
    labels: Tensor
    classes: tuple[str, ...]
    wanted: Wanted

    def shape(self) -> tuple[int, int, int]:
        """The one (h, w, c) of all images; headers are read only where something is not wanted explicitly."""
        size, channels = self.wanted.size, self.wanted.channels
        if size is None or channels is None:
            looked = [self._try(look, name) for name in self.names]
            seen = {shape for shape in looked if shape is not None}
            if not seen:
                raise self.unreadable()
            sizes = sorted({shape[:2] for shape in seen})
            if size is None and len(sizes) > 1:
                raise ValueError(f"size must be given: {self.listing.where} holds images from {_by(sizes[0])} to {_by(sizes[-1])}")
            size, channels = size or sizes[0], channels or max(shape[2] for shape in seen)
        return *size, channels

    def parts(self, shape: tuple[int, int, int], progress: Progress) -> Iterator[Samples]:
        """The decoded images, at most a few hundred at a time."""
        for start in range(0, len(self.names), _PART):
            end = min(start + _PART, len(self.names))
            asked = partial(decode, size=shape[:2], channels=shape[2])
            arrays = {i: array for i in range(start, end) if (array := self._try(asked, self.names[i])) is not None}
            if arrays:
                images = torch.stack([torch.tensor(array) for array in arrays.values()]).permute(0, 3, 1, 2)
                yield Samples(images, self.labels[list(arrays)], self.classes, tuple(self.names[i] for i in arrays))
            progress("reading images", end, len(self.names), self.listing.where)

    def _try(self, asked: Callable[[bytes, str], _Answer], name: str) -> _Answer | None:
        """What a file's bytes say; None of one that is damaged and to be left out."""
        try:
            return asked(self.listing.read(name), f"{self.listing.where}/{name}")
        except (BadFile, UnsafeFile):
            if self.wanted.damaged is None:
                raise
            return None

    def unreadable(self) -> BadFile:
        """That nothing is left once the damaged are left out."""
        also = f", nor can any other of {len(self.names):,}" if len(self.names) > 1 else ""
        return BadFile(f"{self.listing.where}/{self.names[0]}: cannot be read as an image{also}")

    def told(self, found: Samples) -> Samples:
        """The same samples, once what is missing from them has been told."""
        if self.wanted.damaged is not None:
            for name in sorted(set(self.names) - set(found.names)):
                self.wanted.damaged(name)
        return found

    def key(self, shape: tuple[int, int, int]) -> str:
        """Name of the decoded copy: another one as soon as any file or wish changes."""
        text = repr((self.listing.where, self.listing.key, shape, self.classes, self.names, self.wanted.damaged is None))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _by(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def unwrapped(listing: Listing, classes: Sequence[str] | None) -> Listing:
    """A zipped folder's content without the folders that only wrap it; a class's own folder stays."""
    folders, names = listing.folders(), images_in(listing)
    while len(folders) == 1 and all("/" in name for name in names) and folders[0] not in (classes or ()):
        listing = listing.under(folders[0])
        folders, names = listing.folders(), images_in(listing)
    return listing


def split_of(listing: Listing, split: str | None, part: str = "test") -> Listing:
    """The split, else the `part`, of a `train`/`test` layout; a plain listing passes through when no split is asked for.

    Raises:
        MissingData: a split is asked for that is not there.
    """
    folders = listing.folders()
    if split is None and not {"train", "test"} <= set(folders):
        return listing
    if (split or part) not in folders:
        raise MissingData(f"{listing.where} has no folder {split!r}; it has {', '.join(folders[:12]) or 'none'}")
    return listing.under(split or part)


def halves(listing: Listing) -> tuple[Listing, Listing]:
    """Training and test files: the folders `train` and `test`, else four fifths and one fifth of each class, always the same.

    Raises:
        MissingData, BadFile: as `read`.
    """
    if {"train", "test"} <= set(listing.folders()):
        return listing.under("train"), listing.under("test")
    names, labels, _ = _find(listing, Wanted())
    test = frozenset(names[i] for i in take(labels, len(names) // 5, seed=0).tolist())
    return listing.only(name for name in names if name not in test), listing.only(test)


def class_names(listing: Listing) -> tuple[str, ...]:
    """The classes that a listing's own folders make.

    Raises:
        MissingData, BadFile: as `read`.
    """
    return _find(listing, Wanted())[2]
