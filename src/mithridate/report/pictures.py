"""What the report shows beside its numbers: plain tensors, each optional, with no file and no drawing in them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def _require(condition: bool, field: str, wanted: str, got: object) -> None:
    if not condition:
        raise ValueError(f"{field} must {wanted}, got {got}")


def _check_images(images: Tensor, field: str) -> None:
    _require(images.ndim == 4 and images.shape[1] in (1, 3), field, "have shape (n, 1 or 3, h, w)", tuple(images.shape))
    _require(images.dtype == torch.uint8 or images.is_floating_point(), field, "be uint8 or float in [0, 1]", images.dtype)


@dataclass(frozen=True, eq=False, kw_only=True)
class Sheet:
    """Images with what is known of each, in the order to show them.

    Attributes:
        images: (n, c, h, w); uint8, or float in [0, 1].
        names: n file names, which may come from strangers, or empty.
        scores: (n,) suspicion, or None.
        predicted: n class names the model answered, or empty.

    Raises:
        ValueError: a wrong shape or count, naming the field and the value.
    """

    images: Tensor
    names: tuple[str, ...] = ()
    scores: Tensor | None = None
    predicted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_images(self.images, "images")
        count = len(self.images)
        _require(len(self.names) in (0, count), "names", f"be empty or hold {count}", len(self.names))
        _require(len(self.predicted) in (0, count), "predicted", f"be empty or hold {count}", len(self.predicted))
        if self.scores is not None:
            _require(self.scores.shape == (count,), "scores", f"have shape ({count},)", tuple(self.scores.shape))


@dataclass(frozen=True, eq=False, kw_only=True)
class Candidates:
    """Reversed triggers: for each class, the smallest mark found that sends images to it.

    Attributes:
        masks: (k, 1, h, w) in [0, 1], where each mark lies.
        patterns: (k, c, h, w) in [0, 1], its color.
        classes: the k class indices; 0 to k - 1 when empty.
        stamped: (m, c, h, w) clean images with the target's mark on them, or None.

    Raises:
        ValueError: a wrong shape or count, naming the field and the value.
    """

    masks: Tensor
    patterns: Tensor
    classes: tuple[int, ...] = ()
    stamped: Tensor | None = None

    def __post_init__(self) -> None:
        _check_images(self.masks, "masks")
        _check_images(self.patterns, "patterns")
        count, _, height, width = self.patterns.shape
        _require(self.masks.shape == (count, 1, height, width), "masks", f"have shape {(count, 1, height, width)}", tuple(self.masks.shape))
        _require(len(self.classes) in (0, count), "classes", f"be empty or hold {count}", len(self.classes))
        if self.stamped is not None:
            _check_images(self.stamped, "stamped")
        if not self.classes:
            object.__setattr__(self, "classes", tuple(range(count)))


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """A detector's scores around its threshold.

    Attributes:
        clean: (n,) scores of held-out clean images.
        suspect: (m,) scores of the suspect images.
        threshold: scores above it are flagged. Where each predicted class has its own, give scores minus their threshold, and 0.

    Raises:
        ValueError: a wrong shape, naming the field and the value.
    """

    clean: Tensor
    suspect: Tensor
    threshold: float

    def __post_init__(self) -> None:
        _require(self.clean.ndim == 1, "clean", "have shape (n,)", tuple(self.clean.shape))
        _require(self.suspect.ndim == 1, "suspect", "have shape (m,)", tuple(self.suspect.shape))


@dataclass(frozen=True, eq=False, kw_only=True)
class View:
    """Images as points: two directions of a hidden layer's activations.

    Attributes:
        points: (n, 2), in any unit.
        groups: (n,) int64, which group each point belongs to.
        names: one name for each group.
        highlight: the group to set apart, such as the flagged images, or None.

    Raises:
        ValueError: a wrong shape or an unnamed group, naming the field and the value.
    """

    points: Tensor
    groups: Tensor
    names: tuple[str, ...]
    highlight: int | None = None

    def __post_init__(self) -> None:
        _require(self.points.ndim == 2 and self.points.shape[1] == 2, "points", "have shape (n, 2)", tuple(self.points.shape))
        _require(self.groups.shape == self.points.shape[:1], "groups", f"have shape ({len(self.points)},)", tuple(self.groups.shape))
        low, high = (int(self.groups.min()), int(self.groups.max())) if len(self.groups) else (0, -1)
        _require(low >= 0 and high < len(self.names), "groups", f"lie in [0, {len(self.names)})", f"[{low}, {high}]")


@dataclass(frozen=True, eq=False, kw_only=True)
class Attacked:
    """Adversarial examples beside the images they were made from.

    Attributes:
        clean: (n, c, h, w).
        perturbed: (n, c, h, w).
        before: n class names the model answered for `clean`, or empty.
        after: n class names the model answered for `perturbed`, or empty.

    Raises:
        ValueError: a wrong shape or count, naming the field and the value.
    """

    clean: Tensor
    perturbed: Tensor
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_images(self.clean, "clean")
        shape = tuple(self.clean.shape)
        _require(tuple(self.perturbed.shape) == shape, "perturbed", f"have shape {shape}", tuple(self.perturbed.shape))
        _require(len(self.before) in (0, shape[0]), "before", f"be empty or hold {shape[0]}", len(self.before))
        _require(len(self.after) in (0, shape[0]), "after", f"be empty or hold {shape[0]}", len(self.after))


@dataclass(frozen=True, eq=False, kw_only=True)
class Pictures:
    """Everything the report can draw. What is None is left out.

    Attributes:
        clean: a few clean images.
        candidates: reversed triggers.
        scores: detector scores of clean and suspect images.
        flagged: the flagged suspect images, most suspicious first.
        view: the activation view.
        training: training images that look poisoned, most suspicious first.
        landing: (classes,) how many untargeted adversarial examples landed in each class.
        attacked: adversarial examples.
        truth: images with the real trigger; shown only in the judge's section.

    Raises:
        ValueError: `landing` is not one-dimensional.
    """

    clean: Sheet | None = None
    candidates: Candidates | None = None
    scores: Scores | None = None
    flagged: Sheet | None = None
    view: View | None = None
    training: Sheet | None = None
    landing: Tensor | None = None
    attacked: Attacked | None = None
    truth: Sheet | None = None

    def __post_init__(self) -> None:
        if self.landing is not None:
            _require(self.landing.ndim == 1, "landing", "have shape (classes,)", tuple(self.landing.shape))
