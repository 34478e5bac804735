"""The answer key from the command line, for victims whose truth is known: read apart, and given to the judge alone."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from mithridate import datasets, infect
from mithridate.data import Samples
from mithridate.judge import Key


def read(truth: Path, source: str, clean: Samples, root: Path | None, seed: int) -> tuple[Key, Samples]:
    """The key that `mithridate infect` wrote, and images for the judge: those of `source` that the auditor does not have.

    Raises:
        BadFile: not a `truth.json` of an attack.
        ValueError: every image of `source` is among the auditor's.
    """
    return infect.read_key(truth), unseen(source, clean, "--clean", root, seed)


def unseen(source: str, given: Samples, called: str, root: Path | None, seed: int) -> Samples:
    """The images of `source` that are not among the `given` ones, in their form; `called` is what the user knows those as.

    Raises:
        MithridateError, ValueError: images that cannot be read or do not fit, or every one of them is among the given.
    """
    channels, height, width = given.images.shape[1:]
    others = datasets.images(source, channels=channels, size=(height, width), classes=given.classes, root=root, seed=seed)
    known = {_print(image) for image in given.images}
    fresh = others[torch.tensor([_print(image) not in known for image in others.images])]
    if not len(fresh):
        raise ValueError(f"--judge-on must hold images that are not among {called}, got {source!r}")
    return fresh


def _print(image: torch.Tensor) -> bytes:
    return hashlib.sha256(image.contiguous().numpy().tobytes()).digest()
