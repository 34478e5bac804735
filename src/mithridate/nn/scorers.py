"""What a detector's `fit` returns: a module whose fitted state is nothing but buffers.

So `.to()`, `state_dict` and safetensors work as for any module, and a scorer is rebuilt from its class, its model,
its layers and its buffers. The model is referenced, not copied, and not part of the state: a guard saves it once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_type_hints

from torch import Tensor, nn

from mithridate.nn.taps import Trace, tapped, trace


class TraceScorer(nn.Module):
    """Base of all scorers: give it a `score` that reads a trace.

    Args:
        model: the protected model, taking float images in [0, 1].
        layers: the taps that `score` reads.
        buffers: the fitted state, tensors of any shape.
    """

    differentiable: bool = True
    model: nn.Module

    def __init__(self, model: nn.Module, layers: Sequence[str], buffers: Mapping[str, Tensor]) -> None:
        super().__init__()
        object.__setattr__(self, "model", model)
        self.layers = tuple(layers)
        for name, value in buffers.items():
            self.register_buffer(name, value.contiguous())  # a view would be saved with all that it is a view of
        self.settle()

    def settle(self) -> None:
        """Work out, once, what follows from the buffers and is kept beside them, such as numbers that an exporter must know."""

    def forward(self, images: Tensor) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> scores (n,), higher = more malicious."""
        return self.score(trace(self.model, images, self.layers))

    def score(self, seen: Trace) -> Tensor:
        """Scores (n,) from a trace that holds this scorer's layers."""
        raise NotImplementedError

    def explained(self, seen: Trace) -> tuple[Tensor, dict[str, Tensor]]:
        """Scores (n,), and by name the p-values (n,) of the scorers that this one is made of; most are made of none."""
        return self.score(seen), {}


def rebuild(made: type[TraceScorer], model: nn.Module, layers: Sequence[str], buffers: Mapping[str, Tensor]) -> TraceScorer:
    """A scorer again, from its class, its model, its layers and its buffers, which may come from anyone's file.

    Raises:
        ValueError: a buffer is missing, or the model lacks a layer.
    """
    missing = [name for name, hint in get_type_hints(made).items() if hint is Tensor and name not in buffers]
    if missing:
        raise ValueError(f"{made.__name__} lacks {', '.join(missing)}")
    with tapped(model, layers):  # complains about layers that the model does not have
        return made(model, layers, buffers)
