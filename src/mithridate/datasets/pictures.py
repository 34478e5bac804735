"""Read one picture file as a tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def read_picture(path: str | Path, channels: int, size: tuple[int, int]) -> Tensor:
    """A picture as float (channels, h, w) in [0, 1], resized bilinearly to `size` = (h, w).

    Raises:
        ValueError: no such file, or not a picture.
    """
    try:
        with Image.open(path) as picture:
            resized = picture.convert("L" if channels == 1 else "RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR)
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"pattern must be a readable picture, got {str(path)!r}: {error}") from error
    array = np.array(resized, dtype=np.float32).reshape(*size, channels)
    return torch.from_numpy(array).permute(2, 0, 1).contiguous() / 255
