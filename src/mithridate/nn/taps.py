"""One forward pass gives the logits and the activations of chosen layers of any module.

A layer is named as in `model.named_modules()`; `name@input` taps what goes into it, and `@input` the images. Feature maps are
averaged over space and token sequences over tokens, so that an activation is (n, d) whatever the architecture. `name@4x4` keeps
a grid of 4 by 4 means instead (fewer where the map is smaller), `name@raw` the activation as it is; both may follow `@input`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from mithridate.data import Samples, to_float
from mithridate.nn.modes import check_logits, device_of, evaluating

HEADS = (nn.Linear, nn.Conv2d)
TAP = re.compile(r"(?P<module>[^@]*)(?P<before>@input)?(?:@(?P<raw>raw)|@(?P<rows>[1-9]\d*)x(?P<columns>[1-9]\d*))?")


@dataclass(frozen=True, eq=False)
class Trace:
    """What one forward pass left.

    Attributes:
        images: (n, c, h, w) the inputs.
        logits: (n, classes).
        activations: layer name -> (n, d), or of any shape where the tap is raw.
    """

    images: Tensor
    logits: Tensor
    activations: dict[str, Tensor] = field(default_factory=dict)

    @property
    def predicted(self) -> Tensor:
        """Predicted classes (n,)."""
        return self.logits.argmax(1)


def pooled(activation: Tensor, grid: tuple[int, int] = (1, 1)) -> Tensor:
    """(n, d, h, w) -> (n, d * cells) by the mean in each cell of a grid; (n, tokens, d) -> (n, d) by the mean; (n, d) passes through."""
    if activation.ndim == 4:
        rows, columns = min(grid[0], activation.shape[2]), min(grid[1], activation.shape[3])
        return activation.mean((2, 3)) if rows == columns == 1 else adaptive_avg_pool2d(activation, (rows, columns)).flatten(1)
    return activation.mean(1) if activation.ndim == 3 else activation.flatten(1)


@contextmanager
def tapped(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the pooled activations of `layers` during forward passes; the hooks are gone afterwards, also on error.

    Raises:
        ValueError: a layer the model does not have.
    """
    modules = dict(model.named_modules())
    taken: dict[str, Tensor] = {}
    handles = []
    try:
        for layer in layers:
            tap = TAP.fullmatch(layer)
            if tap is None or tap["module"] not in modules:
                close = difflib.get_close_matches(layer.partition("@")[0], modules, n=3)
                raise ValueError(f"layer {layer!r} is not in the model; close names: {', '.join(close) or 'none'}")
            handles.append(_hook(modules[tap["module"]], layer, tap, taken))
        yield taken
    finally:
        for handle in handles:
            handle.remove()


def _hook(module: nn.Module, layer: str, tap: re.Match[str], taken: dict[str, Tensor]) -> torch.utils.hooks.RemovableHandle:
    grid = (int(tap["rows"] or 1), int(tap["columns"] or 1))

    def keep(activation: Tensor) -> None:
        taken[layer] = activation if tap["raw"] else pooled(activation, grid)

    def keep_input(_: nn.Module, args: tuple[Any, ...]) -> None:
        keep(args[0])

    def keep_output(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        keep(output[0] if isinstance(output, tuple) else output)

    return module.register_forward_pre_hook(keep_input) if tap["before"] else module.register_forward_hook(keep_output)


def trace(model: nn.Module, images: Tensor, layers: Sequence[str] = ()) -> Trace:
    """One forward pass in eval mode over one batch; gradients flow to the images.

    Args:
        images: float (n, c, h, w) in [0, 1], on the model's device.
        layers: names of the layers to keep.

    Raises:
        ValueError: an unknown layer or one that does not run, or a model that does not return finite logits.
    """
    with evaluating(model), tapped(model, layers) as taken:
        logits = check_logits(model(images), images.shape[0])  # len() would fix the batch size of an exported program
    for layer in layers:
        if layer not in taken:
            raise ValueError(f"layer {layer!r} did not run in a forward pass of the model")
    return Trace(images, logits, dict(taken))


@torch.no_grad()
def trace_all(model: nn.Module, samples: Samples | Tensor, layers: Sequence[str] = (), batch_size: int = 256) -> Trace:
    """The trace of any number of images, without gradients, gathered on the CPU; `images` are the given ones.

    Raises:
        ValueError: as for `trace`, or there are no images.
    """
    images = samples.images if isinstance(samples, Samples) else samples
    if not len(images):
        raise ValueError("images must not be empty")
    device = device_of(model)
    parts = [trace(model, to_float(batch.to(device)), layers) for batch in images.split(batch_size)]
    kept = {layer: torch.cat([p.activations[layer].float().cpu() for p in parts]) for layer in layers}
    return Trace(images, torch.cat([p.logits.float().cpu() for p in parts]), kept)


@torch.no_grad()
def last_hidden(model: nn.Module, image: Tensor) -> str:
    """Name of the tap that holds the last hidden activations: the input of the layer that makes the logits.

    Found by running one image (1, c, h, w) and looking for the last linear layer or convolution that ran.

    Raises:
        ValueError: the model has no such layer.
    """
    order = _executed(model, image, HEADS)
    if not order:
        raise ValueError("model must contain a linear or convolutional layer that runs")
    return f"{order[-1]}@input"


@torch.no_grad()
def stages(model: nn.Module, image: Tensor) -> tuple[str, ...]:
    """Names of the layers that end each spatial resolution, from input to output, and the last hidden tap.

    Of all modules that ran and gave a feature map, the last one of each size, by running one image (1, c, h, w).
    """
    sizes: dict[tuple[int, ...], str] = {}
    names = {module: name for name, module in model.named_modules()}

    def keep(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and names[module]:
            sizes[tuple(output.shape[2:])] = names[module]

    _run_hooked(model, image, list(model.modules()), keep)
    return (*sizes.values(), last_hidden(model, image))


def _executed(model: nn.Module, image: Tensor, kinds: tuple[type[nn.Module], ...]) -> list[str]:
    names = {module: name for name, module in model.named_modules() if isinstance(module, kinds)}
    order: list[str] = []
    _run_hooked(model, image, list(names), lambda module, args, output: order.append(names[module]))
    return order


def _run_hooked(model: nn.Module, image: Tensor, modules: list[nn.Module], hook: Any) -> None:
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        with evaluating(model):
            model(to_float(image.to(device_of(model))))
    finally:
        for handle in handles:
            handle.remove()
