"""Local intrinsic dimensionality: around a malicious input, clean ones are all about equally far away.

    score(x) = sum_l w_l z_l(x) + b,   z_l(x) = (ln LID_l(x) - m_lc) / s_lc,   c = predicted class

LID_l is estimated from the distances to the k nearest of a fixed set of clean images in the features of layer l; m_lc and s_lc
are its mean and standard deviation over clean images of class c, each without itself. By default w_l = 1 / layers and b = 0; as
in the paper, a logistic regression may learn both from adversarial examples. Unlike there, the clean images are no new minibatch
each time, and k is the root of their number n: the estimate converges where k grows without bound and k / n vanishes.

Scope: patch and blended triggers, whose inputs lie off all clean ones. Cost: one pass over the clean images to fit, one product
with the bank per layer and input. Known failures: adversarial examples, confident (Athalye et al. 2018) or at the boundary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mithridate.analysis.dimensionality import log_dimension
from mithridate.analysis.perturbed import adversarial_and_noisy
from mithridate.analysis.reference import distinct, representatives
from mithridate.checks import within
from mithridate.data import Samples
from mithridate.nn.ascent import Budget
from mithridate.nn.modes import device_of
from mithridate.nn.scorers import TraceScorer
from mithridate.nn.taps import Trace, stages, trace_all
from mithridate.roles import Progress, register, silent


class LIDScorer(TraceScorer):
    """Scores by the local dimension in several layers.

    Buffers: `bank` (n, d) clean features, all layers side by side; `member` (classes, n) bool, whose neighbors are sought for each
    predicted class, of no rows where all are; `k`, their number; `mean` and `std` (classes, layers) of clean log dimensions;
    `weight` (layers,) and `bias`, a scalar.
    """

    bank: Tensor
    member: Tensor
    k: Tensor
    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def log_dimensions(self, seen: Trace, classes: Tensor, *, own: bool = False) -> Tensor:
        """Log dimensions (n, layers) from a trace of inputs that are given classes (n,); `own`: input i is image i, or made from it."""
        points = [seen.activations[layer].flatten(1).to(self.bank.dtype) for layer in self.layers]
        banks = self.bank.split([each.shape[1] for each in points], 1)
        k, member = int(self.k), self.member[classes] if len(self.member) else None
        return torch.stack([log_dimension(p, bank, k, member=member, own=own) for p, bank in zip(points, banks, strict=True)], 1)

    def standardized(self, seen: Trace, *, own: bool = False) -> Tensor:
        """Log dimensions (n, layers) in standard deviations above what is usual for the predicted class; `own` as above."""
        predicted = seen.predicted
        return (self.log_dimensions(seen, predicted, own=own) - self.mean[predicted]) / self.std[predicted]

    def score(self, seen: Trace) -> Tensor:
        """Scores (n,) from a trace: the weighed sum over the layers."""
        return self.standardized(seen) @ self.weight + self.bias


@register(
    "detector",
    scope=("patch", "blend"),
    cost="1 forward pass over the clean images; 1 product with the bank per layer and input",
    paper="Ma et al., ICLR 2018, arXiv 1801.02613",
)
@dataclass(frozen=True, kw_only=True)
class LID:
    """Local intrinsic dimensionality among clean images, in several layers.

    Attributes:
        layers: the taps to read; none for the last of each spatial resolution and the last hidden one. Equal ones count once.
        k: neighbors; None for the root of the number of clean images.
        least: a class with fewer clean images is described by all classes' images together.
        conditional: seek neighbors among the predicted class's clean images only, where it has `least` and 2 k of them.
        supervised: weigh the layers by logistic regression on adversarial examples made here, instead of alike.
        eps: largest change of a pixel in these, in (0, 1].

    Raises:
        ValueError: a field out of its range.
    """

    scorer: ClassVar[type[TraceScorer]] = LIDScorer
    layers: tuple[str, ...] = ()
    k: int | None = None
    least: int = 20
    conditional: bool = False
    supervised: bool = False
    eps: float = 8 / 255

    def __post_init__(self) -> None:
        within(self, "[2, inf)", "k", "least")
        within(self, "(0, 1]", "eps")

    def fit(self, model: nn.Module, clean: Samples, *, seed: int = 0, progress: Progress = silent) -> LIDScorer:
        """A scorer whose bank holds the clean features; `seed` draws the noisy images of the supervised form, else nothing.

        Raises:
            ValueError: too few clean images, labels the model has no logit for, adversarial examples that never fool it, or a
                model that does not return finite logits.
        """
        k, labels = self.k or max(2, round(len(clean) ** 0.5)), clean.labels.cpu()
        if len(clean) <= k:
            raise ValueError(f"clean must hold at least {k + 1} images, got {len(clean)}")
        seen = trace_all(model, clean, self.layers or stages(model, clean.images[:1]))
        scorer = self._one_class(model, seen, labels, k)
        if self.supervised:
            self._learn(scorer, seen, clean, torch.Generator().manual_seed(seed))
        progress("lid", 1, 1)
        return scorer.to(device_of(model))

    def _one_class(self, model: nn.Module, seen: Trace, labels: Tensor, k: int) -> LIDScorer:
        """A scorer that knows clean images (n,) only, and weighs all layers alike."""
        layers, classes = distinct(seen.activations), seen.logits.shape[1]
        bank = torch.cat([seen.activations[layer].flatten(1) for layer in layers], 1)
        groups, enough = representatives(labels, classes, self.least), max(self.least, 2 * k)
        member = representatives(labels, classes, enough) if self.conditional else groups[:0]
        mean, weight = bank.new_zeros(classes, len(layers)), bank.new_full((len(layers),), 1 / len(layers))
        buffers = {"bank": bank, "member": member, "k": torch.tensor(k), "mean": mean, "std": mean + 1}
        scorer = LIDScorer(model, layers, buffers | {"weight": weight, "bias": bank.new_zeros(())})
        found = scorer.log_dimensions(seen, labels, own=True)
        scorer.mean = torch.stack([found[rows].mean(0) for rows in groups])
        scorer.std = torch.stack([found[rows].std(0) for rows in groups]).clamp_min(1e-3)
        return scorer

    def _learn(self, scorer: LIDScorer, seen: Trace, clean: Samples, generator: torch.Generator) -> None:
        """Weigh the layers so that adversarial examples are told from clean images and from noise of the same length."""
        from sklearn.linear_model import LogisticRegression

        budget = Budget(eps=self.eps, early_exit=True)  # far beyond the boundary they look like clean images of the wrong class
        made, noisy, fooled = adversarial_and_noisy(scorer.model, clean, budget, generator)
        if not bool((works := fooled & (seen.predicted == clean.labels.cpu())).any()):
            raise ValueError(f"eps must be large enough to fool the model, got {self.eps}")
        usual = [scorer.standardized(each, own=True) for each in (seen, trace_all(scorer.model, noisy, scorer.layers))]
        wrong = scorer.standardized(trace_all(scorer.model, made, scorer.layers), own=True)[works]
        rows = torch.cat([*usual, wrong])
        found = LogisticRegression(class_weight="balanced").fit(rows.numpy(), torch.arange(len(rows)) >= len(rows) - len(wrong))
        scorer.weight, scorer.bias = (torch.from_numpy(each[0]).to(rows) for each in (found.coef_, found.intercept_[None]))
