"""Images as PNG data URIs, so that the report stays one file."""

from __future__ import annotations

import base64
import io

import torch
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from mithridate.data import to_float, to_uint8
from mithridate.report.words import printable

LARGEST = 96  # pixels a side; larger images are scaled down, which keeps a report of a hundred photographs below 3 MB
CRISP = 64  # images up to this size are shown with square pixels: the marks that matter may be one pixel wide


def image(pixels: Tensor, alt: str) -> Markup:
    """One image (c, h, w), uint8 or float in [0, 1], as an `<img>` that needs no other file."""
    array = to_uint8(torch.nan_to_num(pixels) if pixels.is_floating_point() else pixels).cpu()
    picture = Image.fromarray(array[0].numpy() if len(array) == 1 else array.permute(1, 2, 0).contiguous().numpy())
    kind = "px" if max(picture.size) <= CRISP else "photo"
    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Markup('<img class="{}" alt="{}" width="{}" height="{}" src="data:image/png;base64,{}">').format(
        kind, printable(alt), *picture.size, data
    )


def amplified(clean: Tensor, perturbed: Tensor) -> tuple[Tensor, int]:
    """The differences (n, c, h, w) around middle gray, and the whole factor they were multiplied by to become visible."""
    difference = to_float(perturbed) - to_float(clean)
    largest = float(difference.abs().max()) if difference.numel() else 0.0
    factor = max(1, int(0.5 / largest)) if largest > 0 else 1
    return (0.5 + factor * difference).clamp(0, 1), factor
