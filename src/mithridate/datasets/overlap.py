"""Images that are in two sets, pixel by pixel: what is judged must not be what it is judged by."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from mithridate.data import Samples, to_float


def unseen(inputs: Samples, known: Samples) -> tuple[Samples, str]:
    """Suspect inputs without those that are known images, and a sentence on how many were left out; empty where none were.

    The same pixels count, held as uint8 or as floats; the smallest change makes another image. Where some are left out, nameless
    ones are named by their positions, so that they can be found.

    Raises:
        ValueError: all are.
    """
    held = set(_digests(known.images))
    new = torch.tensor([digest not in held for digest in _digests(inputs.images)], dtype=torch.bool)
    if bool(new.all()):
        return inputs, ""
    if not bool(new.any()):
        raise ValueError(f"suspect must hold images that are not among the clean ones, got {len(inputs)} that all are")
    names = inputs.names or tuple(str(i) for i in range(len(inputs)))
    note = f"{int((~new).sum()):,} of {len(inputs):,} suspect inputs are among the clean images, pixel by pixel, and were left out"
    return Samples(inputs.images, inputs.labels, inputs.classes, names)[new], note


def _digests(images: Tensor, size: int = 256) -> list[bytes]:
    rows = (row for part in images.split(size) for row in to_float(part).float().cpu().contiguous().flatten(1).numpy())
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]
