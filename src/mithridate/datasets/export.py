"""Samples out of memory and into files that this and other tools read back."""

from __future__ import annotations

import io
import json
import secrets
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mithridate.data import Samples, to_uint8
from mithridate.datasets.wanted import safe_names
from mithridate.files import write_atomic


def write_folder(samples: Samples, folder: Path) -> None:
    """Write class folders of PNG files and `metadata.jsonl` (`file_name, label, class, source`), as ImageFolder and the hub read them.

    Args:
        samples: images; floats are rounded to 8 bits.
        folder: where to; it appears only when all is written.

    Raises:
        ValueError: the folder is there and not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"folder must be new or empty, got {folder}")
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir(parents=True)
    try:
        lines = [json.dumps(row) for row in _write_images(samples, temporary)]
        (temporary / "metadata.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_npz(samples: Samples, path: Path) -> None:
    """Write `images` (n, h, w, c), `labels`, `classes` and `names`; floats stay floats. The file appears only when it is whole."""
    arrays: dict[str, Any] = {
        "images": samples.images.permute(0, 2, 3, 1).cpu().numpy(),
        "labels": samples.labels.cpu().numpy(),
        "classes": np.array(samples.classes, dtype=np.str_),
        **({"names": np.array(samples.names, dtype=np.str_)} if samples.names else {}),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def _write_images(samples: Samples, folder: Path) -> list[dict[str, str | int]]:
    tops = safe_names(samples.classes)
    for top in tops:
        (folder / top).mkdir()
    digits = len(str(len(samples)))
    rows: list[dict[str, str | int]] = []
    for i, label in enumerate(samples.labels.tolist()):
        name = f"{tops[label]}/{i:0{digits}d}.png"
        pixels = to_uint8(samples.images[i]).permute(1, 2, 0).cpu().numpy()
        Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(folder / name, "PNG")
        source = samples.names[i] if samples.names else ""
        rows.append({"file_name": name, "label": label, "class": samples.classes[label], "source": source})
    return rows
