"""Spectral signatures: within a label, poisoned images shift the features along one direction, the one of largest variance.

    score(x) = ((z(x) - mean_c) . v_c)^2 / median over the class of the same,   c = label of x

with v_c the top right singular vector of the centered features of class c at the last hidden layer. The paper ranks
within one class and removes a share it is told; the division by the class's median makes scores of classes with features
of different size comparable, leaves the ranking within a class as it was, and needs no poison rate.

Scope: dirty-label patch and blend poisoning of a minority of a class. Cost: one pass over the samples and one
eigendecomposition a class. Known failures: a class that is half poison (both halves lie equally far from the mean), very
few poisoned images, and attacks that hide in the features (adaptive, clean-label).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mithridate.analysis.spectral import signature
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
    """

    layer: str | None = None

    def screen(self, model: nn.Module, samples: Samples, *, seed: int = 0, progress: Progress = silent) -> Tensor:
        """Scores (n,) on the CPU, at least 0, 1 for the typical sample of a class; `seed` has no effect.

        Raises:
            ValueError: no samples, an unknown layer, or a model that does not return finite logits.
        """
        if not len(samples):
            raise ValueError("samples must not be empty")
        layer = self.layer or last_hidden(model, samples.images[:1])
        features = trace_all(model, samples, (layer,)).activations[layer]
        labels = samples.labels.cpu()
        scores = torch.zeros(len(samples))
        present = labels.unique().tolist()
        for done, label in enumerate(present, 1):
            squares = signature(features[labels == label])
            typical = squares.median().clamp_min(1e-12 * squares.mean()).clamp_min(torch.finfo(torch.float32).tiny)
            scores[labels == label] = (squares / typical).float()
            progress("spectral_signature", done, len(present))
        return scores
