"""What a pickle would run, read from its opcodes without running any of them."""

from __future__ import annotations

import io
import pickletools
import re
from typing import Any

MAX_PICKLE = 64 << 20
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First object of the pickle streams that `torch.save` wrote before version 1.6."""

_PUSHES_TEXT = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"}
_TENSORS_ONLY = re.compile(
    r"collections\.OrderedDict|torch\.(Size|device)|torch\._utils\._rebuild_(tensor|tensor_v2|parameter)"
    r"|torch\.(storage\.)?\w*Storage|torch\.(b?float\d+|u?int\d+|bool|double|half|long)"
)


def scan(data: bytes, streams: int = 1) -> tuple[list[str], Any]:
    """The globals that up to `streams` consecutive pickles import, as sorted `module.name`, and the first value they push.

    A name that is computed in a way not followed here is given as `?`, which no list of harmless names contains.

    Raises:
        ValueError: the bytes are not a pickle, or it breaks off.
    """
    found: set[str] = set()
    first: Any = None
    source = io.BytesIO(data)
    for number in range(streams):
        if number and source.tell() >= len(data):
            break
        names, value = _scan_one(source)
        found |= names
        first = value if not number else first
    return sorted(found), first


def harmful(names: list[str]) -> list[str]:
    """Those of the names that a file of nothing but named tensors does not need."""
    return [name for name in names if not _TENSORS_ONLY.fullmatch(name)]


def shown(names: list[str]) -> str:
    """The first few names on one line, with whatever could mislead a terminal replaced."""
    clean = [re.sub(r"[^\w.<>-]", "?", name[:80]) for name in names[:4]]
    return ", ".join(clean) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _scan_one(source: io.BytesIO) -> tuple[set[str], Any]:
    names: set[str] = set()
    texts: list[str] = []
    memo: dict[int, str] = {}
    first: Any = None
    try:
        for opcode, value, _ in pickletools.genops(source):
            first = value if first is None and opcode.name != "PROTO" else first
            if opcode.name in _PUSHES_TEXT:
                texts.append(str(value))
            elif opcode.name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
                memo[len(memo) if value is None else value] = texts[-1] if texts else "?"
            elif opcode.name in ("BINGET", "LONG_BINGET", "GET"):
                texts.append(memo.get(int(value or 0), "?"))
            elif opcode.name in ("GLOBAL", "INST"):
                names.add(str(value).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.add(".".join(texts[-2:]) if len(texts) > 1 else "?")
            elif opcode.name in ("EXT1", "EXT2", "EXT4"):
                names.add("?")
    except (ValueError, IndexError, UnicodeDecodeError, MemoryError, OverflowError) as error:
        raise ValueError(f"not a whole pickle: {error}") from error
    return names, first
