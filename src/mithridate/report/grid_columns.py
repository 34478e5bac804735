"""Columns of text and numbers, packed small enough that a browser opens 100,000 cards at once."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mithridate.errors import BadFile
from mithridate.report.grid_rows import Row, distinct

Described = dict[str, Any]


class Pack:
    """Arrays one after another, and where each of them lies.

    The page gets `length of the header (4 bytes), header (JSON), arrays`, compressed, as base64; `grid_data.js` reads it.
    """

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0

    def array(self, values: npt.NDArray[Any]) -> Described:
        """Add an array; gives its description for the header."""
        data = np.ascontiguousarray(values).tobytes()
        described = {"type": values.dtype.name, "at": self.size, "count": int(values.size)}
        padding = -len(data) % 8
        self.parts += [data, bytes(padding)]
        self.size += len(data) + padding
        return described

    def codes(self, values: Sequence[int]) -> Described:
        """Add whole numbers from 0, in as few bytes as they need."""
        highest = max(values, default=0)
        kind = np.uint8 if highest < 1 << 8 else np.uint16 if highest < 1 << 16 else np.uint32
        return self.array(np.array(values, dtype=kind))

    def texts(self, values: Sequence[str]) -> Described:
        """Add a text a row: every different one once, and which of them a row has."""
        words, codes = distinct(values)
        return {"words": words, "codes": self.codes(codes)}

    def keys(self, values: Sequence[str]) -> Described:
        """Add the rows' keys of 24 hex digits; empty ones become zeros."""
        return self.array(np.frombuffer(b"".join(bytes.fromhex(key or "0" * 24) for key in values), dtype=np.uint8))

    def numbers(self, rows: Sequence[Row], part: str) -> dict[str, Described]:
        """Add the numbers of one part of the cards, such as `metrics`, a column a name.

        A column holds its different values once (with low and high end, NaN where there is no interval), and for each row which
        of them it has, counted from 1; 0 is none. What is no number is left out.

        Raises:
            BadFile: a number that is too large to be one.
        """
        found: dict[str, tuple[dict[tuple[float, ...], int], list[int]]] = {}
        for i, row in enumerate(rows):
            for name, value in row[part].items():
                triple = _triple(value, row)
                if triple is None:
                    continue
                if name not in found:
                    found[name] = {}, [0] * len(rows)
                values, codes = found[name]
                codes[i] = values.setdefault(triple, len(values) + 1)
        return {name: self._column(values, codes) for name, (values, codes) in found.items()}

    def packed(self, header: Mapping[str, Any]) -> str:
        """Header and arrays as text for the page."""
        told = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
        told += b" " * (-(len(told) + 4) % 8)
        return compress(b"".join([len(told).to_bytes(4, "little"), told, *self.parts]))

    def _column(self, values: Iterable[tuple[float, ...]], codes: Sequence[int]) -> Described:
        table = np.array(list(values), dtype=np.float64)
        plain = bool(np.isnan(table[:, 1:]).all())
        return {"width": 1 if plain else 3, "values": self.array(table[:, 0] if plain else table), "codes": self.codes(codes)}


def compress(data: bytes) -> str:
    """Bytes as base64 of a gzip stream, the same for the same bytes."""
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


def _triple(value: Any, row: Row) -> tuple[float, ...] | None:
    """A number with the ends of its interval, or None for what is no number."""
    parts: list[Any] = list(value) if isinstance(value, (list, tuple)) and len(value) == 3 else [value]
    if not all(isinstance(part, (int, float)) for part in parts):
        return None
    try:
        numbers = tuple(map(float, parts))
    except OverflowError as error:
        raise BadFile(f"card {row['key']}: damaged: a number of {len(str(value))} digits") from error
    return numbers if len(numbers) == 3 else (*numbers, _NAN, _NAN)


_NAN = float("nan")  # one object, so that two triples with it are equal
