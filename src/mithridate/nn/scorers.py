"""What a detector's `fit` returns: a module whose fitted state is nothing but buffers.

So `.to()`, `state_dict` and safetensors work as for any module, and a scorer is rebuilt from its class, its model,
its layers and its buffers. The model is referenced, not copied, and not part of the state: a guard saves it once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from mithridate.nn.taps import Trace, trace


class TraceScorer(nn.Module):
    """Base of all scorers: give it a `score` that reads a trace.

    Args:
        model: the protected model, taking float images in [0, 1].
        layers: the taps that `score` reads.
        buffers: the fitted state, tensors of any shape.
    """

    differentiable: ClassVar[bool] = True
    model: nn.Module

    def __init__(self, model: nn.Module, layers: Sequence[str], buffers: Mapping[str, Tensor]) -> None:
        super().__init__()
        object.__setattr__(self, "model", model)
        self.layers = tuple(layers)
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def forward(self, images: Tensor) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> scores (n,), higher = more malicious."""
        return self.score(trace(self.model, images, self.layers))

    def score(self, seen: Trace) -> Tensor:
        """Scores (n,) from a trace that holds this scorer's layers."""
        raise NotImplementedError
