"""What an attack costs: images run through the model, and images a gradient was taken of, counted at the model itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass
class Effort:
    """Images that went forward through a model, and images whose gradient came back through it."""

    forwards: int = 0
    gradients: int = 0


@contextmanager
def metered(model: nn.Module) -> Iterator[Effort]:
    """Count every forward and backward pass of `model`, whoever asks for it; copies made meanwhile count as well.

    A backward pass counts once for each pass through the logits: nine gradients of one forward pass are nine.
    """
    effort = Effort()

    def forward(_: nn.Module, __: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        effort.forwards += len(output)
        if output.requires_grad:
            output.register_hook(backward)

    def backward(gradient: Tensor) -> None:
        effort.gradients += len(gradient)

    handle = model.register_forward_hook(forward)
    try:
        yield effort
    finally:
        handle.remove()
