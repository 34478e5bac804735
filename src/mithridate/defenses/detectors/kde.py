"""Class-conditional kernel density at the last hidden layer: malicious inputs lie far from the class they are given.

    score(x) = (m_c - log p_c(z(x))) / s_c,   p_c(z) = 1/n_c sum_i N(z; z_i, h_c^2 I),   c = predicted class

The z_i are the features of clean images whose true class is c. The bandwidth h_c maximizes the leave-one-out log
likelihood of the class. m_c and s_c are the mean and the standard deviation of the class's own leave-one-out log
densities: they are in different units for each bandwidth, and without them scores of two classes could not share a cut.
A class with few clean images is judged by the density of all classes together. With `uncertainty`, the log variance of the
probabilities under dropout is added, in standard deviations too: the paper's second feature, without its regression on attacks.

Scope: patch triggers and blended triggers, adversarial examples of low confidence. Cost: one pass over the clean images
to fit, one product with the bank per input. Known failures: high-confidence and detector-aware adversarial examples
(Carlini and Wagner 2017), features that the attacker made alike in training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mithridate.analysis.density import Kernels, best_bandwidth, leave_one_out, log_density
from mithridate.analysis.prepared import Prepared
from mithridate.analysis.reference import kept, representatives
from mithridate.checks import within
from mithridate.data import Samples
from mithridate.nn.dropout import log_variance, usual_variance
from mithridate.nn.modes import device_of
from mithridate.nn.scorers import TraceScorer
from mithridate.nn.taps import Trace, last_hidden, trace_all
from mithridate.roles import Progress, register, silent


class KDEScorer(TraceScorer):
    """Scores by the density of the predicted class.

    Buffers: `bank` (n, d) clean features; `member` (classes, n) bool, whose bank each of them belongs to; `bandwidth`, `mean` and
    `std` (classes,); `seeds` of thinned models, none without uncertainty, and `doubt` (2, classes), their usual log variance.
    """

    bank: Tensor
    member: Tensor
    bandwidth: Tensor
    mean: Tensor
    std: Tensor
    seeds: Tensor
    doubt: Tensor

    def settle(self) -> None:
        """Read the seeds; banks are prepared when they are needed."""
        self._kernels, self._thinned = Prepared(_kernels), self.seeds.tolist()

    def log_density(self, features: Tensor, classes: Tensor) -> Tensor:
        """Raw log densities (n,) of features (n, d) under the estimates of the given classes (n,)."""
        features, width = features.to(self.bank.dtype), self.bandwidth[classes]
        if torch.compiler.is_compiling():  # which classes there are is not known
            return log_density(features, self.bank, width, self.member[classes])
        kernels, which = self._kernels.of((self.bank, self.member))
        own, found = which[classes], features.new_empty(len(features))
        for i in own.unique().tolist():
            rows = (own == i).nonzero()[:, 0]
            found = found.index_copy(0, rows, log_density(features[rows], kernels[i], width[rows]))
        return found

    def score(self, seen: Trace) -> Tensor:
        """Scores (n,) from a trace: standard deviations below the class's usual log density, and above its usual uncertainty."""
        predicted = seen.predicted
        density = self.log_density(seen.activations[self.layers[0]], predicted)
        found: Tensor = (self.mean[predicted] - density) / self.std[predicted]
        if not self._thinned:
            return found
        doubt = log_variance(self.model, seen.images, self._thinned)
        return found + (doubt - self.doubt[0, predicted]) / self.doubt[1, predicted]


def _kernels(bank: Tensor, member: Tensor) -> tuple[tuple[Kernels, ...], Tensor]:
    """The different estimates, and which of them (classes,) each class has."""
    sets, which = member.unique(dim=0, return_inverse=True)
    return tuple(Kernels.of(bank[rows]) for rows in sets), which


@register(
    "detector",
    scope=("patch", "blend", "evasion"),
    cost="1 forward pass over the clean images; 1 product with the bank per input; `uncertainty` passes more",
    paper="Feinman et al. 2017, arXiv 1703.00410",
)
@dataclass(frozen=True, kw_only=True)
class KDE:
    """Kernel density of the predicted class at the last hidden layer.

    Attributes:
        layer: the tap to read, as in `fc` or `fc@input`; None for the last hidden one.
        bandwidth: in feature units; None for the likeliest of each class.
        least: a class with fewer clean images is judged by all classes' images together.
        reference: clean images that are kept, at most; the classes are balanced as far as they go.
        uncertainty: passes with dropout that each input takes, of models that have dropout; None to look at density alone.

    Raises:
        ValueError: a field out of its range.
    """

    scorer: ClassVar[type[TraceScorer]] = KDEScorer
    layer: str | None = None
    bandwidth: float | None = None
    least: int = 5
    reference: int = 4000
    uncertainty: int | None = None

    def __post_init__(self) -> None:
        within(self, "(0, inf)", "bandwidth")
        within(self, "[2, inf)", "least", "uncertainty")
        within(self, f"[{self.least}, inf)", "reference")

    def fit(self, model: nn.Module, clean: Samples, *, seed: int = 0, progress: Progress = silent) -> KDEScorer:
        """A scorer whose bank holds the clean features by true class; `seed` draws which, where there are more than it keeps.

        Raises:
            ValueError: too few clean images, features that all coincide, labels the model has no logit for, uncertainty of
                a model without dropout, or a model that does not return finite logits.
        """
        if len(clean) < self.least:
            raise ValueError(f"clean must hold at least {self.least} images, got {len(clean)}")
        clean, layer = kept(clean, self.reference, seed), self.layer or last_hidden(model, clean.images[:1])
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
        seeds, doubt = usual_variance(model, seen, self.uncertainty or 0, representatives(seen.predicted, classes, self.least), seed)
        return KDEScorer(model, (layer,), buffers | {"seeds": seeds, "doubt": doubt}).to(device_of(model))

    def _describe(self, own: Tensor, everyone: Tensor) -> tuple[float, float, float]:
        """Bandwidth, and mean and standard deviation of the leave-one-out log densities, of one class."""
        width = self.bandwidth or best_bandwidth(own if bool((own != own[0]).any()) else everyone)
        density = leave_one_out(own, width)
        return width, float(density.mean()), max(float(density.std()), 1e-3)
