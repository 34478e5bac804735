"""A cell: one victim to make, or one defense to judge, addressed by everything that its result depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mithridate.bench.code import CORE, fingerprint

Kind = Literal["victim", "judgment"]


@dataclass(frozen=True, eq=False)
class Cell:
    """One unit of work.

    Attributes:
        kind: `victim` trains a model, `judgment` judges a defense on one (or the model without any).
        config: everything that defines it, as JSON can hold it; repeated in its card.
        needs: what it reads -> key of the cell that gives it: `victim`, `twin`, `undefended`, `inspection`.
        key: 24 hex digits of config, needs and the code of the methods; the same cell has the same key everywhere.
    """

    kind: Kind
    config: Mapping[str, Any]
    needs: Mapping[str, str]
    key: str = field(repr=False)


def cell(kind: Kind, config: Mapping[str, Any], methods: Sequence[Any], needs: Mapping[str, Cell] = {}) -> Cell:
    """The cell of a configuration, the methods it runs and the cells it reads."""
    keys = {name: each.key for name, each in needs.items()}
    told = {"core": CORE, "kind": kind, "config": config, "needs": keys, "code": [fingerprint(method) for method in methods]}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return Cell(kind, config, keys, hashlib.sha256(text.encode()).hexdigest()[:24])
