"""Training images from the most suspicious to the least: as tables for programs, and held against the truth where that is known."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mithridate import metrics
from mithridate.data import Samples
from mithridate.errors import MissingExtra
from mithridate.metrics import Rate

COLUMNS = ("rank", "row", "file", "label", "class", "score", "flagged")
HEADER = f"{','.join(COLUMNS)}\n".encode()
TOP = 0.01  # share of the images that a person might look through


@dataclass(frozen=True)
class Judged:
    """How well a ranking found the poison.

    Attributes:
        poisoned: images that are poisoned.
        auroc: chance in [0, 1] that a poisoned image has a higher score than a clean one.
        precision: share of the flagged images that are poisoned; None when none is flagged.
        recall: share of the poisoned images that are flagged.
        top: share of poisoned images among the first hundredth of the ranking.
    """

    poisoned: int
    auroc: float
    precision: Rate | None
    recall: Rate
    top: Rate


@dataclass(frozen=True, eq=False, kw_only=True)
class Ranking:
    """Suspicion of every training image.

    Attributes:
        samples: the images; their names are paths, or empty.
        scores: (n,) finite, higher = more suspicious.
        flagged: (n,) bool, held for poisoned.
        poisoned: (n,) bool, which are; for the judge only, None where nobody knows.

    Raises:
        ValueError: a wrong shape, or scores that are not finite.
    """

    samples: Samples
    scores: Tensor
    flagged: Tensor
    poisoned: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("scores", "flagged", *(() if self.poisoned is None else ("poisoned",))):
            if getattr(self, name).shape != (len(self.samples),):
                raise ValueError(f"{name} must have shape ({len(self.samples)},), got {tuple(getattr(self, name).shape)}")
        if not bool(torch.isfinite(self.scores).all()):
            raise ValueError("scores must be finite, got NaN or infinity")

    @cached_property
    def order(self) -> Tensor:
        """Rows (n,) from the most suspicious to the least: flagged ones first, then by score; equal ones keep their order.

        Scores of several classes may not compare, and a flag is about an image among its own class.
        """
        ordered = self.scores.argsort(descending=True, stable=True)
        return ordered[self.flagged[ordered].int().argsort(descending=True, stable=True)]

    @cached_property
    def shown(self) -> Tensor:
        """The flagged rows, most suspicious first; all rows where none is flagged."""
        return self.order[: int(self.flagged.sum()) or len(self.order)]

    @cached_property
    def judged(self) -> Judged | None:
        """What the truth says; None where it is not known, or does not hold both poisoned and clean images."""
        truth = self.poisoned
        if truth is None or not 0 < int(truth.sum()) < len(truth):
            return None
        top = truth[self.order[: max(1, round(TOP * len(truth)))]]
        return Judged(
            poisoned=int(truth.sum()),
            auroc=metrics.auroc(self.scores, truth),
            precision=metrics.precision(self.flagged, truth) if bool(self.flagged.any()) else None,
            recall=metrics.true_positive_rate(self.flagged, truth),
            top=Rate(int(top.sum()), len(top)),
        )

    def name(self, row: int) -> str:
        """The path of an image, or the number of its row."""
        return self.samples.names[row] if self.samples.names else str(row)

    def csv(self, *, all_rows: bool = True) -> bytes:
        """`rank,row,file,label,class,score,flagged` in order; only the flagged rows if not all. Nothing of the truth."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(row for row in self._rows() if all_rows or row[-1])
        return text.getvalue().encode("utf-8", "surrogateescape")

    def parquet(self) -> bytes:
        """The same table as Parquet.

        Raises:
            MissingExtra: pyarrow is not installed.
        """
        if importlib.util.find_spec("pyarrow") is None:
            raise MissingExtra("pyarrow", "grid")
        import pyarrow as pa
        from pyarrow import parquet

        columns = zip(*self._rows(), strict=True)
        table = pa.table({name: [_text(value) for value in values] for name, values in zip(COLUMNS, columns, strict=True)})
        buffer = io.BytesIO()
        parquet.write_table(table, buffer)
        return buffer.getvalue()

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        labels, scores, flagged = (each.tolist() for each in (self.samples.labels, self.scores, self.flagged))
        for rank, row in enumerate(self.order.tolist(), 1):
            file = self.samples.names[row] if self.samples.names else ""
            yield rank, row, file, labels[row], self.samples.classes[labels[row]], float(f"{scores[row]:.7g}"), int(flagged[row])


def _text(value: Any) -> Any:
    """A value as Parquet can hold it: file names need not be valid text."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if isinstance(value, str) else value
