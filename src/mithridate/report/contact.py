"""A contact sheet as one picture: images, what was made of them, and the difference, amplified until it can be seen."""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mithridate.data import to_float, to_uint8
from mithridate.report.pictures import Attacked
from mithridate.report.words import compact, plural, printable, shorten

PAGE, INK, SOFT, LINE = "#f8f7f3", "#1d232b", "#59626d", "#cfccc3"
LARGE, PLAIN, SMALL = 20, 15, 13  # font sizes in pixels
CELL = 96  # side that small images are enlarged to at most, by a whole factor, so that each of their pixels stays a square
LARGEST = 224  # side that large ones are reduced to
MARGIN, GAP, BREAK = 18, 8, 22  # pixels around everything, between two images, between two parts


@dataclass(frozen=True, eq=False, kw_only=True)
class Part:
    """One set of images beside what was made of them.

    Attributes:
        name: what was done, in a word or two: `stamped`.
        note: when, or to what end, in a few words: `at test time`.
        shown: both sets of images, and what is written under each.
    """

    name: str
    note: str = ""
    shown: Attacked


@dataclass(frozen=True, eq=False)
class _Row:
    """Images beside each other, what is written under each, and left of them."""

    label: str
    note: str
    images: tuple[Image.Image, ...]
    captions: tuple[str, ...]
    space: int

    @property
    def height(self) -> int:
        return self.images[0].height + (SMALL + 8 if self.captions else 0) + self.space

    @property
    def width(self) -> int:
        return len(self.images) * (self.images[0].width + GAP) - GAP


def sheet(parts: Sequence[Part], title: str = "", subtitle: str = "") -> Image.Image:
    """Three rows a part: the images, what was made of them, and the difference around middle gray, with its factor.

    Args:
        parts: images of any size and number, 1 or 3 channels.
        title: a line above, or nothing.
        subtitle: a smaller line under the title, or nothing.

    Returns:
        An RGB picture. Small images are enlarged by a whole factor without smoothing, large ones reduced.

    Raises:
        ValueError: no image to show.
    """
    rows = [row for part in parts if len(part.shown.clean) for row in _rows(part)]
    if not rows:
        raise ValueError("parts must hold at least one image, got none")
    rows[-1] = _Row(rows[-1].label, rows[-1].note, rows[-1].images, rows[-1].captions, 0)
    left = MARGIN + 2 * GAP + max(max(_width(row.label, PLAIN), _width(row.note, SMALL)) for row in rows)
    wide = max(left + max(row.width for row in rows) + MARGIN, 420)
    head = list(_head(title, subtitle, wide - 2 * MARGIN))
    top = MARGIN + sum(size + 8 for _, size, _ in head) + (8 if head else 0)
    page = Image.new("RGB", (wide, top + sum(row.height for row in rows) + MARGIN), PAGE)
    _draw_head(page, head)
    for row in rows:
        _draw_row(page, row, left, top)
        top += row.height
    return page


def measure(part: Part) -> str:
    """One line: how much was changed; lengths and noise are of pixel values in [0, 1]."""
    change = (to_float(part.shown.perturbed).double() - to_float(part.shown.clean).double()).flatten(1)
    count, _, height, width = part.shown.clean.shape
    start = f"{part.name}, {plural(count, 'image')} of {width}x{height}: "
    if not change.numel() or not bool(change.any()):
        return f"{start}no change at all"
    length, noise = float(change.norm(dim=1).mean()), 10 * math.log10(1 / float(change.square().mean()))
    share = float((change != 0).double().mean())
    largest = f"largest change {compact(255 * float(change.abs().max()))}/255"
    return f"{start}{largest}, mean L2 {compact(length)}, PSNR {noise:.1f} dB, {share:.0%} of the values changed"


def _rows(part: Part) -> Iterator[_Row]:
    shown = part.shown
    difference, factor = _difference(shown)
    yield _Row("clean", "", _pictures(shown.clean), shown.before, GAP)
    yield _Row(part.name, part.note, _pictures(shown.perturbed), shown.after, GAP)
    yield _Row(f"difference x{factor}", "gray: no change", _pictures(difference), (), BREAK)


def _difference(shown: Attacked) -> tuple[Tensor, int]:
    """Differences around middle gray, times a whole factor that the largest tenth of them may saturate at."""
    change = to_float(shown.perturbed).float() - to_float(shown.clean).float()
    sizes = change[change != 0].abs().sort().values
    large = float(sizes[int(0.9 * (len(sizes) - 1))]) if len(sizes) else 1.0
    factor = max(1, int(0.5 / large + 0.01))
    return (0.5 + factor * change).clamp(0, 1), factor


def _pictures(images: Tensor) -> tuple[Image.Image, ...]:
    """Images (n, c, h, w) in the size they are shown in, in color."""
    pixels = to_uint8(torch.nan_to_num(images) if images.is_floating_point() else images).cpu().expand(-1, 3, -1, -1)
    pictures = [Image.fromarray(each.permute(1, 2, 0).contiguous().numpy()) for each in pixels]
    longest = max(images.shape[2:])
    if longest > LARGEST:
        size = tuple(max(1, round(side * LARGEST / longest)) for side in (images.shape[3], images.shape[2]))
        return tuple(each.resize((size[0], size[1]), Image.Resampling.LANCZOS) for each in pictures)
    factor = max(1, CELL // longest)
    return tuple(each.resize((factor * each.width, factor * each.height), Image.Resampling.NEAREST) for each in pictures)


def _head(title: str, subtitle: str, wide: int) -> Iterator[tuple[str, int, str]]:
    """Lines of text with size and color, none wider than the page."""
    for text, size, color in ((title, LARGE, INK), (subtitle, PLAIN, SOFT)):
        for line in textwrap.wrap(_plain(text), max(8, int(wide / (0.54 * size)))):
            yield line, size, color


def _draw_head(page: Image.Image, head: Sequence[tuple[str, int, str]]) -> None:
    draw, top = ImageDraw.Draw(page), MARGIN
    for text, size, color in head:
        draw.text((MARGIN, top), text, fill=color, font=ImageFont.load_default(size))
        top += size + 8


def _draw_row(page: Image.Image, row: _Row, left: int, top: int) -> None:
    draw, font, small = ImageDraw.Draw(page), ImageFont.load_default(PLAIN), ImageFont.load_default(SMALL)
    middle = top + row.images[0].height / 2
    draw.text((MARGIN, middle - (9 if row.note else 0)), _plain(row.label), fill=INK, font=font, anchor="lm")
    draw.text((MARGIN, middle + 11), _plain(row.note), fill=SOFT, font=small, anchor="lm")
    for i, image in enumerate(row.images):
        x = left + i * (image.width + GAP)
        page.paste(image, (x, top))
        draw.rectangle((x - 1, top - 1, x + image.width, top + image.height), outline=LINE)  # white images end somewhere too
        if row.captions:
            text = _fit(row.captions[i], image.width)
            draw.text((x + image.width / 2, top + image.height + 4), text, fill=SOFT, font=small, anchor="ma")


def _fit(text: str, wide: int) -> str:
    """As much of the caption as fits under its image."""
    text = _plain(text)
    limit = next((n for n in range(len(text), 2, -1) if _width(shorten(text, n), SMALL) <= wide), 2)
    return shorten(text, limit)


def _plain(text: str) -> str:
    """Text in the letters that the font has; names come from strangers."""
    letters = (c for c in unicodedata.normalize("NFKD", printable(text)) if not unicodedata.combining(c))
    return "".join(c if c.isascii() or c == "…" else "?" for c in letters)


def _width(text: str, size: int) -> int:
    return math.ceil(ImageFont.load_default(size).getlength(_plain(text)))
