"""Where an audit starts and what it ends with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from mithridate.data import Samples
from mithridate.datasets.overlap import unseen
from mithridate.guard import Guard
from mithridate.report.pictures import Pictures
from mithridate.report.schema import AuditReport, Loading


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject:
    """What is audited: all that a stranger gives and a user has.

    Attributes:
        model: takes float images (n, c, h, w) in [0, 1], gives logits (n, classes).
        clean: images that the user vouches for, with their true labels; a few hundred do.
        suspect: inputs to judge, or None; their labels are not used.
        training: the images the model was trained on, or None.
        loading: how the model came in, or None for a module that was in memory.
    """

    model: nn.Module
    clean: Samples
    suspect: Samples | None = None
    training: Samples | None = None
    loading: Loading | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an audit leaves."""

    report: AuditReport
    pictures: Pictures
    repaired: nn.Module
    guard: Guard | None

    def __repr__(self) -> str:
        return f"Outcome({self.report.verdict})"

    def _repr_html_(self) -> str:
        from mithridate.report.html import summary_html  # jinja is only needed to draw

        return summary_html(self.report)


def checked(subject: Subject) -> tuple[Subject, list[str]]:
    """The subject without those suspects that are clean images, and what to say of it.

    Raises:
        ValueError: no images where some are promised, of another shape than the clean ones, or suspects that are all clean images.
    """
    for name, images in (("suspect", subject.suspect), ("training", subject.training)):
        if images is None:
            continue
        if not len(images):
            raise ValueError(f"{name} must hold at least one image, got none")
        if images.images.shape[1:] != subject.clean.images.shape[1:]:
            wanted, got = tuple(subject.clean.images.shape[1:]), tuple(images.images.shape[1:])
            raise ValueError(f"{name} images must have the shape {wanted} of the clean ones, got {got}")
    if subject.suspect is None:
        return subject, []
    fresh, note = unseen(subject.suspect, subject.clean)
    return replace(subject, suspect=fresh), [note] if note else []
