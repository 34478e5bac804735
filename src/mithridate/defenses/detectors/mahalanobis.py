"""Distance from what a class usually is, layer by layer, in units of how much clean images vary in each direction.

    score(x) = max_l (ln M_l(x) - m_l) / s_l,   M_l(x) = (z_l - mu_lc)' S_l^-1 (z_l - mu_lc),   c = predicted class

z_l are the means of the channels of layer l, or how rough they are: the root mean square difference between neighbors. mu_lc is
their mean over clean images of class c, S_l their covariance about these, shared by all classes and shrunk (Ledoit and Wolf);
m_l and s_l are mean and standard deviation of the clean ln M_l, each without the image itself. The paper weighs the layers by
logistic regression on attacks; the maximum needs none. Perturbations are noise to early layers and exaggerations to late ones:
small next to the spread of clean images, so that the nearest ones are as near as ever, but in directions in which those hardly
differ. That is what Euclidean distances, densities and dimensions do not see, and the inverse of the covariance does.

Scope: adversarial examples of high confidence, and triggers that are noise. Cost: one pass over the clean images to fit, one
small product per layer and input. Known failures: adversarial examples at the boundary, or made with small steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mithridate.analysis.projection import shrunk_covariance
from mithridate.analysis.reference import distinct, kept, representatives, weighed
from mithridate.checks import within
from mithridate.data import Samples
from mithridate.nn.modes import device_of
from mithridate.nn.scorers import TraceScorer
from mithridate.nn.taps import Trace, trace_all
from mithridate.roles import Progress, register, silent


class MahalanobisScorer(TraceScorer):
    """Scores by the layer that finds an input strangest.

    Buffers: `mean` (classes, d), all layers side by side; `whitening`, the (d_l, d_l) of each layer, flattened one after the other,
    by which differences are multiplied to have unit covariance; `usual` (layers, 2), mean and standard deviation of clean logs.
    """

    mean: Tensor
    whitening: Tensor
    usual: Tensor

    def log_distances(self, seen: Trace, classes: Tensor) -> Tensor:
        """Logs (n, layers) of the squared distances from the means of given classes (n,), of a trace."""
        points = [seen.activations[layer].flatten(1).to(self.mean.dtype) for layer in self.layers]
        widths = [each.shape[1] for each in points]
        means, turns = self.mean[classes].split(widths, 1), self.whitening.split([width**2 for width in widths])
        found = [(p - m) @ turn.view(len(turn) // w, w) for p, m, turn, w in zip(points, means, turns, widths, strict=True)]
        return torch.stack([_log_square(each) for each in found], 1)

    def score(self, seen: Trace) -> Tensor:
        """Scores (n,) from a trace: standard deviations above the usual log distance, in the layer where they are most."""
        mean, std = self.usual.unbind(1)
        return ((self.log_distances(seen, seen.predicted) - mean) / std).amax(1)


@register(
    "detector",
    scope=("evasion",),
    cost="1 forward pass over the clean images; 1 small product per layer and input",
    paper="Lee et al., NeurIPS 2018, arXiv 1807.03888",
)
@dataclass(frozen=True, kw_only=True)
class Mahalanobis:
    """Distance from the predicted class in several layers, by the covariance of clean images.

    Attributes:
        layers: the taps to read; none for means and roughness of what goes into the layers with weights. Equal ones count once.
        depth: how many of these layers, spread evenly.
        least: a class with fewer clean images has the mean of all.
        reference: clean images that are looked at, at most; the classes are balanced as far as they go.

    Raises:
        ValueError: a field out of its range.
    """

    scorer: ClassVar[type[TraceScorer]] = MahalanobisScorer
    layers: tuple[str, ...] = ()
    depth: int = 8
    least: int = 5
    reference: int = 2000

    def __post_init__(self) -> None:
        within(self, "[2, inf)", "depth", "least")
        within(self, f"[{self.least}, inf)", "reference")

    def fit(self, model: nn.Module, clean: Samples, *, seed: int = 0, progress: Progress = silent) -> MahalanobisScorer:
        """A scorer that knows means and covariances of clean images; `seed` draws which, where there are more than it looks at.

        Raises:
            ValueError: too few clean images, features that do not vary, labels the model has no logit for, or a model that does
                not return finite logits.
        """
        if len(clean) < self.least:
            raise ValueError(f"clean must hold at least {self.least} images, got {len(clean)}")
        clean = kept(clean, self.reference, seed)
        taps = self.layers or tuple(t for tap in weighed(model, clean.images[:8], self.depth, ("", "")) for t in (f"{tap}@rough", tap))
        seen = trace_all(model, clean, taps)
        member = representatives(clean.labels.cpu(), seen.logits.shape[1], self.least)
        layers = tuple(layer for layer in distinct(seen.activations) if _varies(seen.activations[layer]))
        if not layers:
            raise ValueError("clean must hold images that differ in the model's features, got none that do")
        rows = []
        for i, layer in enumerate(layers, 1):
            rows.append(_describe(seen.activations[layer].flatten(1).double(), clean.labels.cpu(), member))
            progress("mahalanobis", i, len(layers))
        mean, whitening, usual = zip(*rows, strict=True)
        buffers = {"mean": torch.cat(mean, 1), "whitening": torch.cat(whitening), "usual": torch.stack(usual)}
        buffers = {name: value.float() for name, value in buffers.items()}
        return MahalanobisScorer(model, layers, buffers).to(device_of(model))


def _describe(points: Tensor, labels: Tensor, member: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means (classes, d), whitening, flattened, and the usual log distance and its deviation (2,), of a layer's points (n, d)."""
    share = member.to(points) / member.sum(1, keepdim=True)
    mean, std = share @ points, points.std(0)
    scale = std.clamp_min(1e-2 * float(std.mean()))  # a channel that clean images hardly use is not infinitely telling
    apart = (points - mean[labels]) / scale
    covariance, shrunk = shrunk_covariance(apart)
    turn = torch.linalg.inv(torch.linalg.cholesky(covariance)).T
    without = (1 - share[labels, torch.arange(len(labels))]).reciprocal()  # of each image's own part in its mean
    square = (without[:, None] * apart @ turn).square().sum(1)
    own = (1 - shrunk) / len(points) * square  # and in the covariance, by Sherman and Morrison
    logs = (square / (1 - own).clamp_min(1e-3)).clamp_min(1e-12).log()
    return mean, (turn / scale[:, None]).flatten(), torch.stack([logs.mean(), logs.std().clamp_min(1e-3)])


def _varies(points: Tensor) -> bool:
    return bool((points.std(0) > 1e-5 * points.abs().amax()).any())  # more than by rounding


def _log_square(rows: Tensor) -> Tensor:
    return rows.square().sum(1).clamp_min(1e-12).log()
