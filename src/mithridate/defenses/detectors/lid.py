"""Local intrinsic dimensionality: around a malicious input, clean ones are all about equally far away.

    score(x) = sum_l w_l z_l(x) + b,   z_l(x) = (ln LID_l(x) - m_lc) / s_lc,   c = predicted class

LID_l is estimated from the distances to the k nearest of a fixed set of clean images in the features of layer l; m_lc and s_lc
are its mean and standard deviation over clean images of class c, each without itself. By default w_l = 1 / layers and b = 0; as
in the paper, a logistic regression may learn both from adversarial examples. Unlike there, the clean images are the same for all,
and k is the root of their number n: the estimate converges where k grows without bound and k / n vanishes.

Scope: patch and blended triggers, whose inputs lie off all clean ones. Cost: one pass over the clean images to fit, one product
with the bank per layer and input. Known failures: adversarial examples, confident (Athalye et al. 2018) or at the boundary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mithridate.analysis.dimensionality import log_dimensions
from mithridate.analysis.neighbors import side_by_side
from mithridate.analysis.perturbed import adversarial_and_noisy, told_apart
from mithridate.analysis.prepared import Prepared
from mithridate.analysis.reference import distinct, kept, representatives
from mithridate.checks import within
from mithridate.data import Samples
from mithridate.nn.ascent import Budget
from mithridate.nn.modes import device_of
from mithridate.nn.scorers import TraceScorer
from mithridate.nn.taps import Trace, stages, trace_all
from mithridate.roles import Progress, register, silent


class LIDScorer(TraceScorer):
    """Scores by the local dimension in several layers.

    Buffers: `bank` (n, d) clean features, layers side by side; `member` (classes, n) bool, the possible neighbors for a predicted
    class, no rows if all are; `k`; `mean` and `std` (classes, layers) of clean log dimensions; `weight` (layers,); scalar `bias`.
    """

    bank: Tensor
    member: Tensor
    k: Tensor
    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def settle(self) -> None:
        """Read k."""
        self.neighbors, self._banks = int(self.k), Prepared(side_by_side)

    def log_dimensions(self, seen: Trace, classes: Tensor, *, own: bool = False) -> Tensor:
        """Log dimensions (n, layers) from a trace of inputs that are given classes (n,); `own`: input i is image i, or made from it."""
        points = [seen.activations[layer].flatten(1).to(self.bank.dtype) for layer in self.layers]
        banks = self._banks.of((self.bank,), [each.shape[1] for each in points])
        return log_dimensions(points, banks, self.neighbors, member=self.member[classes] if len(self.member) else None, own=own)

    def standardized(self, seen: Trace, *, own: bool = False) -> Tensor:
        """Log dimensions (n, layers) in standard deviations above what is usual for the predicted class; `own` as above."""
        return (self.log_dimensions(seen, seen.predicted, own=own) - self.mean[seen.predicted]) / self.std[seen.predicted]

    def score(self, seen: Trace) -> Tensor:
        """Scores (n,) from a trace: the weighed sum over the layers."""
        return self.standardized(seen) @ self.weight + self.bias


@register("detector", scope=("patch", "blend"), cost="1 product per layer and input", paper="Ma et al., ICLR 2018, arXiv 1801.02613")
@dataclass(frozen=True, kw_only=True)
class LID:
    """Local intrinsic dimensionality among clean images, in several layers.

    Attributes:
        layers: the taps to read; none for the last of each spatial resolution and the last hidden one. Equal ones count once.
        k: neighbors; None for the root of the number of clean images kept.
        least: a class with fewer clean images is described by all classes' images together.
        conditional: seek neighbors among the predicted class's clean images only, where it has `least` and 2 k of them.
        supervised: weigh the layers by logistic regression on adversarial examples made here, instead of alike.
        eps: largest change of a pixel in these, in (0, 1].
        reference: clean images that are kept, at most; the classes are balanced as far as they go.

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
    reference: int = 4000

    def __post_init__(self) -> None:
        within(self, "[2, inf)", "k", "least")
        within(self, "(0, 1]", "eps")
        within(self, f"[{(self.k or 2) + 1}, inf)", "reference")

    @property
    def learns(self) -> tuple[str, ...]:
        """The evasions it makes to learn from."""
        return ("pgd",) if self.supervised else ()

    def fit(self, model: nn.Module, clean: Samples, *, seed: int = 0, progress: Progress = silent) -> LIDScorer:
        """A scorer whose bank holds clean features; `seed` draws which, and the noisy images of the supervised form.

        Raises:
            ValueError: too few clean images, unknown labels, attacks that never fool the model, or logits that are not finite.
        """
        k = self.k or max(2, round(len(clean := kept(clean, self.reference, seed)) ** 0.5))
        if len(clean) <= k:
            raise ValueError(f"clean must hold at least {k + 1} images, got {len(clean)}")
        seen = trace_all(model, clean, self.layers or stages(model, clean.images[:1]))
        scorer = self._one_class(model, seen, clean.labels.cpu(), k)
        if self.supervised:
            self._learn(scorer, seen, clean, seed)
        progress("lid", 1, 1)
        return scorer.to(device_of(model))

    def _one_class(self, model: nn.Module, seen: Trace, labels: Tensor, k: int) -> LIDScorer:
        """A scorer that knows clean images (n,) only, and weighs all layers alike."""
        layers, classes = distinct(seen.activations), seen.logits.shape[1]
        bank = torch.cat([seen.activations[layer].flatten(1) for layer in layers], 1)
        groups, enough = representatives(labels, classes, self.least), max(self.least, 2 * k)
        member = representatives(labels, classes, enough) if self.conditional else groups.new_zeros(0, len(labels))
        buffers = {"bank": bank, "member": member, "k": torch.tensor(k), "bias": bank.new_zeros(()), "mean": bank, "std": bank}
        scorer = LIDScorer(model, layers, buffers | {"weight": bank.new_full((len(layers),), 1 / len(layers))})
        found = scorer.log_dimensions(seen, labels, own=True)
        mean, std = (torch.stack([of(found[rows], 0) for rows in groups]) for of in (torch.mean, torch.std))
        scorer.mean, scorer.std = mean, std.clamp_min(1e-3)
        return scorer

    def _learn(self, scorer: LIDScorer, seen: Trace, clean: Samples, seed: int) -> None:
        """Weigh the layers so that adversarial examples are told from clean images and from noise of the same length."""
        budget = Budget(eps=self.eps, early_exit=True)  # far beyond the boundary they look like clean images of the wrong class
        made, noisy, fooled = adversarial_and_noisy(scorer.model, clean, budget, torch.Generator().manual_seed(seed))
        if not bool((works := fooled & (seen.predicted == clean.labels.cpu())).any()):
            raise ValueError(f"eps must be large enough to fool the model, got {self.eps}")
        traces = (seen, *(trace_all(scorer.model, each, scorer.layers) for each in (noisy, made)))
        *usual, wrong = [scorer.standardized(each, own=True) for each in traces]
        scorer.weight, scorer.bias = told_apart(torch.cat(usual), wrong[works])
