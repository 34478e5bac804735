"""How every defense is judged: which images it gets, which the judge keeps, and what may not be left out."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ConfigDict, with_config

from mithridate.calibrate import needed
from mithridate.checks import within
from mithridate.data import Samples


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The conditions of a grid.

    Attributes:
        fit: clean images that a defense learns from, drawn from the test set.
        calibration: further clean images that set a detector's threshold.
        test: images that the judge measures on, disjoint from both; all that are left if there are fewer.
        fpr: false-positive rate that detectors are held to, in (0, 1).
        robust_images: test images that each attack of `robustness` is run on.
        retrain: share of poisoned images in the few epochs that try to bring a repaired backdoor back, in [0, 1).

    Raises:
        ValueError: a field out of its range, or too few calibration images for `fpr`.
    """

    fit: int = 1000
    calibration: int = 500
    test: int = 4000
    fpr: float = 0.01
    robust_images: int = 200
    retrain: float = 0.01

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "fit", "calibration", "test", "robust_images")
        within(self, "(0, 1)", "fpr")
        within(self, "[0, 1)", "retrain")
        if self.calibration < needed(self.fpr):
            raise ValueError(f"calibration must be at least {needed(self.fpr)} for fpr {self.fpr:g}, got {self.calibration}")

    def split(self, test: Samples, seed: int) -> Parts:
        """Disjoint parts of a test set.

        Raises:
            ValueError: fewer images than the defense's share and one more.
        """
        if len(test) <= self.fit + self.calibration:
            raise ValueError(f"test set must hold more than fit + calibration = {self.fit + self.calibration} images, got {len(test)}")
        fit, calibration, rest = test.split(self.fit, self.calibration, seed=seed)
        return Parts(fit, calibration, rest[: self.test])


@dataclass(frozen=True, eq=False)
class Parts:
    """Who gets which clean images: `fit` and `calibration` are the defense's, `test` the judge's."""

    fit: Samples
    calibration: Samples
    test: Samples
