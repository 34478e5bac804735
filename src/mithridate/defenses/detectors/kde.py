"""Class-conditional kernel density at the last hidden layer: malicious inputs lie far from the class they are given.

    score(x) = (m_c - log p_c(z(x))) / s_c,   p_c(z) = 1/n_c sum_i N(z; z_i, h_c^2 I),   c = predicted class

The z_i are the features of clean images whose true class is c. The bandwidth h_c maximizes the leave-one-out log
likelihood of the class. m_c and s_c are the mean and the standard deviation of the class's own leave-one-out log
densities: they are in different units for each bandwidth, and without them scores of two classes could not share a cut.
A class with few clean images is judged by the density of all classes together.

Scope: patch triggers and blended triggers, adversarial examples of low confidence. Cost: one pass over the clean images
to fit, one product with the bank per input. Known failures: high-confidence and detector-aware adversarial examples
(Carlini and Wagner 2017), features that the attacker made alike in training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mithridate.analysis.density import best_bandwidth, leave_one_out, log_density
from mithridate.analysis.reference import representatives
from mithridate.checks import within
from mithridate.data import Samples
from mithridate.nn.modes import device_of
from mithridate.nn.scorers import TraceScorer
from mithridate.nn.taps import Trace, last_hidden, trace_all
from mithridate.roles import Progress, register, silent


class KDEScorer(TraceScorer):
    """Scores by the density of the predicted class.

    Buffers: `bank` (n, d) clean features; `member` (classes, n) bool, whose bank each of them belongs to; `bandwidth`,
    `mean` and `std` (classes,).
    """

    bank: Tensor
    member: Tensor
    bandwidth: Tensor
    mean: Tensor
    std: Tensor

    def log_density(self, features: Tensor, classes: Tensor) -> Tensor:
        """Raw log densities (n,) of features (n, d) under the estimates of the given classes (n,)."""
        return log_density(features.to(self.bank.dtype), self.bank, self.bandwidth[classes], self.member[classes])

    def score(self, seen: Trace) -> Tensor:
        """Scores (n,) from a trace: standard deviations below the predicted class's usual log density."""
        predicted = seen.predicted
        density = self.log_density(seen.activations[self.layers[0]], predicted)
        return (self.mean[predicted] - density) / self.std[predicted]


@register(
    "detector",
    scope=("patch", "blend", "evasion"),
    cost="1 forward pass over the clean images; 1 product with the bank per input",
    paper="Feinman et al. 2017, arXiv 1703.00410",
)
@dataclass(frozen=True, kw_only=True)
class KDE:
    """Kernel density of the predicted class at the last hidden layer.

    Attributes:
        layer: the tap to read, as in `fc` or `fc@input`; None for the last hidden one.
        bandwidth: in feature units; None for the likeliest of each class.
        least: a class with fewer clean images is judged by all classes' images together.

    Raises:
        ValueError: a field out of its range.
    """

    scorer: ClassVar[type[TraceScorer]] = KDEScorer
    layer: str | None = None
    bandwidth: float | None = None
    least: int = 5

    def __post_init__(self) -> None:
        within(self, "(0, inf)", "bandwidth")
        within(self, "[2, inf)", "least")

    def fit(self, model: nn.Module, clean: Samples, *, seed: int = 0, progress: Progress = silent) -> KDEScorer:
        """A scorer whose bank holds the clean features by true class; nothing is random, so `seed` has no effect.

        Raises:
            ValueError: too few clean images, features that all coincide, labels the model has no logit for, or a model
                that does not return finite logits.
        """
        if len(clean) < self.least:
            raise ValueError(f"clean must hold at least {self.least} images, got {len(clean)}")
        layer = self.layer or last_hidden(model, clean.images[:1])
        seen = trace_all(model, clean, (layer,))
        classes = seen.logits.shape[1]
        bank = seen.activations[layer]
        member = representatives(clean.labels.cpu(), classes, self.least)
        rows = []
        for label in range(classes):
            rows.append(self._describe(bank[member[label]], bank))
            progress("kde", label + 1, classes)
        bandwidth, mean, std = torch.tensor(rows, dtype=bank.dtype).unbind(1)
        buffers = {"bank": bank, "member": member, "bandwidth": bandwidth, "mean": mean, "std": std}
        return KDEScorer(model, (layer,), buffers).to(device_of(model))

    def _describe(self, own: Tensor, everyone: Tensor) -> tuple[float, float, float]:
        """Bandwidth, and mean and standard deviation of the leave-one-out log densities, of one class."""
        width = self.bandwidth or best_bandwidth(own if bool((own != own[0]).any()) else everyone)
        density = leave_one_out(own, width)
        return width, float(density.mean()), max(float(density.std()), 1e-3)
