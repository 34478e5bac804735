"""Class path through the layers: a malicious input looks like one class early on, and is given another in the end.

    rule "switches":  score(x) = -sum_i [ln P_i if y_i != y_{i-1} else ln(1 - P_i)]
    rule "answer":    score(x) = -sum_i ln sum_y q_i(y) P_i(y | c),   c = predicted class

In each layer, the activations of clean images are projected onto their principal components, and the 5 nearest of them, by
their true labels, vote on the class of an input: y_i is the majority, q_i the shares. Clean images, each without itself, say
how often the class switches on the way to the model's answer, P_i, or which class a layer holds when the answer is c.

"switches" is the paper's rule, with two corrections of its algorithm 1, by which an image is its own neighbor and a switch
never seen scores infinite. It forgets between which classes: a backdoor that takes every input to its target in one step, at
a depth where clean images waver, scores like these. "answer" compares each layer with the answer instead, and its scores are
hardly ever equal, as thresholds need. Both are likelihoods, on one scale for all classes. Instead of every layer, `depth`.

Scope: patch and blended triggers. Cost: one pass over the clean images to fit, one product with them per layer and input. Known
failures: adversarial examples of high confidence, whose late layers agree; models whose early layers separate no classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mithridate.analysis.neighbors import nearest, one_by_one
from mithridate.analysis.prepared import Prepared
from mithridate.analysis.projection import principal
from mithridate.analysis.reference import kept, weighed
from mithridate.analysis.switches import answer_priors, answer_surprise, switch_priors, switch_surprise, votes
from mithridate.checks import one_of, within
from mithridate.data import Samples
from mithridate.nn.modes import device_of
from mithridate.nn.scorers import TraceScorer
from mithridate.nn.taps import Trace, trace_all
from mithridate.roles import Progress, register, silent


class ActivationSpaceScorer(TraceScorer):
    """Scores by the classes of the neighbors in several layers.

    Buffers: `mean` (d,) and `axes` (d, r) of the principal components, all layers below each other; `bank` (layers, n, r) clean
    images in them; `labels` (n,), their classes; `k`, how many vote; `priors`, (layers,) of switches, or (layers, classes,
    classes) of votes, which tells the rule.
    """

    differentiable = False  # the votes of neighbors that agree do not change with the input
    mean: Tensor
    axes: Tensor
    bank: Tensor
    labels: Tensor
    k: Tensor
    priors: Tensor

    def settle(self) -> None:
        """Read k."""
        self.neighbors, self._banks = int(self.k), Prepared(one_by_one)

    def votes(self, seen: Trace, *, hard: bool, own: bool = False) -> Tensor:
        """Votes (n, layers, classes) from a trace; `own`: it is of the clean images, and none is its own neighbor."""
        points = [seen.activations[layer].flatten(1).to(self.bank.dtype) for layer in self.layers]
        widths, found, banks = [each.shape[1] for each in points], [], self._banks.of((self.bank,))
        for point, mean, axes, bank in zip(points, self.mean.split(widths), self.axes.split(widths), banks, strict=True):
            distances, rows = nearest((point - mean) @ axes, bank, self.neighbors + 1, own=own)
            found.append(votes(distances, self.labels[rows], seen.logits.shape[1], hard=hard))
        return torch.stack(found, 1)

    def path(self, seen: Trace, *, own: bool = False) -> Tensor:
        """Classes (n, layers + 1) from a trace: of the majority in each layer, and the model's answer; `own` as above."""
        return torch.cat([self.votes(seen, hard=True, own=own).argmax(2), seen.predicted[:, None]], 1)

    def score(self, seen: Trace) -> Tensor:
        """Scores (n,) from a trace, in nats, at least 0."""
        if self.priors.ndim == 1:
            return switch_surprise(self.path(seen), self.priors)
        return answer_surprise(self.votes(seen, hard=False), seen.predicted, self.priors)


@register(
    "detector",
    scope=("patch", "blend"),
    cost="1 forward pass over the clean images; 1 product with the reference per layer and input",
    paper="Katzir and Elovici 2018, arXiv 1811.09043",
)
@dataclass(frozen=True, kw_only=True)
class ActivationSpace:
    """Classes of the nearest clean images in several layers, on the way to the model's answer.

    Attributes:
        layers: the taps to read, from input to output; none for the images and what goes into the layers with weights.
        depth: how many of these, spread evenly.
        rule: judge the votes of each layer by the `answer`, or the `switches` from layer to layer as in the paper.
        components: principal components of each layer, at most.
        k: neighbors that vote.
        reference: clean images that are kept, at most; the classes are balanced as far as they go.

    Raises:
        ValueError: a field out of its range.
    """

    scorer: ClassVar[type[TraceScorer]] = ActivationSpaceScorer
    layers: tuple[str, ...] = ()
    depth: int = 8
    rule: Literal["answer", "switches"] = "answer"
    components: int = 100
    k: int = 5
    reference: int = 2000

    def __post_init__(self) -> None:
        one_of(self, ("answer", "switches"), "rule")
        within(self, "[1, inf)", "components", "k")
        within(self, "[2, inf)", "depth")
        within(self, f"[{self.k + 2}, inf)", "reference")

    def fit(self, model: nn.Module, clean: Samples, *, seed: int = 0, progress: Progress = silent) -> ActivationSpaceScorer:
        """A scorer that knows clean images by their layers; `seed` draws which, where there are more than it keeps.

        Raises:
            ValueError: too few clean images, labels the model has no logit for, or a model that does not return finite logits.
        """
        if len(clean) < self.k + 2:
            raise ValueError(f"clean must hold at least {self.k + 2} images, got {len(clean)}")
        known = kept(clean, self.reference, seed)
        seen = trace_all(model, known, self.layers or weighed(model, known.images[:8], self.depth))
        if int(known.labels.max()) >= seen.logits.shape[1]:
            raise ValueError(f"labels must be below the model's {seen.logits.shape[1]} logits, got {int(known.labels.max())}")
        spaces = []
        for i, activation in enumerate(seen.activations.values(), 1):
            spaces.append(self._space(activation.flatten(1)))
            progress("activation_space", i, len(seen.activations))
        mean, axes, bank = zip(*spaces, strict=True)
        buffers = {"mean": torch.cat(mean), "axes": torch.cat(axes), "bank": torch.stack(bank), "labels": known.labels.cpu()}
        scorer = ActivationSpaceScorer(model, tuple(seen.activations), {**buffers, "k": torch.tensor(self.k), "priors": mean[0][:0]})
        own, switching = scorer.votes(seen, hard=False, own=True), self.rule == "switches"
        priors = switch_priors(scorer.path(seen, own=True)) if switching else answer_priors(own, seen.predicted)
        scorer.priors = priors.contiguous()
        return scorer.to(device_of(model))

    def _space(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (d,), axes (d, components), zero beyond the last there is, and the points (n, d) along them, of one layer."""
        mean, some = principal(points, self.components)
        return mean, (axes := pad(some, (0, self.components - some.shape[1]))), (points - mean) @ axes
