"""Spectral signatures: within a label, poisoned images shift the features along one direction, the one of largest variance.

    score(x) = ((z(x) - mean_c) . v_c)^2 / variance of class c along its second singular vector,   c = label of x

with v_c the top right singular vector of the centered features of class c at the last hidden layer. The paper ranks
within one class and removes a share it is told. The division leaves that ranking as it was and needs no poison rate. It
makes classes comparable: features of any size are measured by their class's ordinary spread, and a class that poison
has stretched in one direction stands out as a whole.

Scope: dirty-label patch and blend poisoning of a minority of a class. Cost: one pass over the samples and one
eigendecomposition a class. Known failures: a class that is half poison (both halves lie equally far from the mean), very
few poisoned images, and attacks that hide in the features (adaptive, clean-label).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mithridate.analysis.spectral import projections, second_population
from mithridate.data import Samples
from mithridate.nn.taps import last_hidden, trace_all
from mithridate.roles import Progress, register, silent


@register(
    "screen",
    scope=("patch", "blend"),
    cost="1 forward pass, 1 eigendecomposition per class",
    paper="Tran, Li and Madry, NeurIPS 2018, arXiv 1811.00636",
)
@dataclass(frozen=True, kw_only=True)
class SpectralSignature:
    """Squared projection on the top singular vector of each label's centered features.

    Attributes:
        layer: the tap to read, as in `fc` or `fc@input`; None for the last hidden one.
        split: measure from the center of a class's first population where it has two; False for the paper's center, the mean,
            from which both halves of a half-poisoned class lie equally far.
    """

    layer: str | None = None
    split: bool = True

    def screen(self, model: nn.Module, samples: Samples, *, seed: int = 0, progress: Progress = silent) -> Tensor:
        """Scores (n,) on the CPU, at least 0, around 1 for ordinary samples; `seed` has no effect.

        Raises:
            ValueError: no samples, an unknown layer, or a model that does not return finite logits.
        """
        if not len(samples):
            raise ValueError("samples must not be empty")
        layer = self.layer or last_hidden(model, samples.images[:1])
        features = trace_all(model, samples, (layer,)).activations[layer]
        labels = samples.labels.cpu()
        odd = second_population(features, labels) if self.split else torch.zeros(len(samples), dtype=torch.bool)
        scores = torch.zeros(len(samples))
        present = labels.unique().tolist()
        for done, label in enumerate(present, 1):
            own = labels == label
            along = projections(features[own], 2)
            variance = along.square().mean(0)
            ordinary = variance[1 if float(variance[1]) > 1e-12 * float(variance[0]) else 0]
            squares = (along[:, 0] - along[~odd[own], 0].mean()).square()
            scores[own] = (squares / ordinary.clamp_min(torch.finfo(torch.float32).tiny)).float()
            progress("spectral_signature", done, len(present))
        return scores
