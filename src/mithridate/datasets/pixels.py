"""One image file's bytes to pixels: only formats without code in them, no bombs, one clear error for a damaged file."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mithridate.errors import BadFile, UnsafeFile

FORMATS = ("PNG", "JPEG", "BMP", "PPM", "GIF", "WEBP", "TIFF")  # no EPS: Pillow hands it to an external PostScript interpreter
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".gif", ".webp", ".tif", ".tiff"})
MAX_PIXELS = 64 * 2**20

_GREY = frozenset({"1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error, zlib.error)


def decode(data: bytes, name: str, size: tuple[int, int] | None, channels: int | None) -> NDArray[np.uint8]:
    """Pixels of one image file.

    Args:
        data: the file's bytes.
        name: what errors call it.
        size: (height, width) to resize to, bilinear and antialiased; None keeps the image's own.
        channels: 1 (grey) or 3 (RGB; transparency is dropped); None keeps the image's own.

    Returns:
        (h, w, c) uint8.

    Raises:
        BadFile: damaged, truncated, or not an image.
        UnsafeFile: more than `MAX_PIXELS` pixels.
    """
    with _opened(data, name) as image:
        count = channels or _channels(image)
        plain = _plain(image, count)
        if size is not None and (plain.height, plain.width) != size:
            plain = plain.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.asarray(plain, np.uint8).reshape(plain.height, plain.width, count)


def look(data: bytes, name: str) -> tuple[int, int, int]:
    """Height, width and channels of one image file, from its header alone.

    Raises:
        BadFile, UnsafeFile: as for `decode`.
    """
    with _opened(data, name) as image:
        return image.height, image.width, _channels(image)


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata is of no interest here
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UnsafeFile(f"{name}: {image.width}x{image.height} pixels, more than the {MAX_PIXELS:,} that are allowed")
                yield image
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise UnsafeFile(f"{name}: more than the {MAX_PIXELS:,} pixels that are allowed") from error
        except UnidentifiedImageError as error:
            raise BadFile(f"{name}: not an image ({', '.join(FORMATS)})") from error
        except _DAMAGE as error:
            raise BadFile(f"{name}: damaged image ({str(error).partition(chr(10))[0] or type(error).__name__})") from error


def _channels(image: Image.Image) -> int:
    return 1 if image.mode in _GREY else 3


def _plain(image: Image.Image, channels: int) -> Image.Image:
    """The image as 8-bit grey or RGB."""
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey at 255 where it should divide.
        image = Image.fromarray((np.asarray(image).astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8))
    elif image.mode == "P":
        image = image.convert("RGBA")
    return image.convert("L" if channels == 1 else "RGB")
