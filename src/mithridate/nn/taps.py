"""One forward pass gives the logits and the activations of chosen layers of any module.

A layer is named as in `model.named_modules()`; `name@input` taps what goes into it, and `@input` the images. Feature maps are
averaged over space and token sequences over tokens, so that an activation is (n, d) whatever the architecture. `name@4x4` keeps
a grid of 4 by 4 means instead (fewer where the map is smaller), `name@rough` how much each channel of a map differs between
neighbors, `name@raw` the activation as it is; all of them may follow `@input`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from mithridate.data import Samples, to_float
from mithridate.nn.modes import check_logits, device_of, evaluating

HEADS = (nn.Linear, nn.Conv2d)
MEMORABLE = 10_000  # images whose traces may be kept
TAP = re.compile(r"(?P<module>[^@]*)(?P<before>@input)?(?:@(?P<way>raw|rough)|@(?P<rows>[1-9]\d*)x(?P<columns>[1-9]\d*))?")


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

    def batches(self, size: int, device: torch.device) -> Iterator[Trace]:
        """Consecutive parts of at most `size` inputs, on a device, with float images."""
        for start in range(0, len(self.logits), size):
            rows = slice(start, start + size)
            kept = {layer: each[rows].to(device) for layer, each in self.activations.items()}
            yield Trace(to_float(self.images[rows].to(device)), self.logits[rows].to(device), kept)


def pooled(activation: Tensor, grid: tuple[int, int] = (1, 1)) -> Tensor:
    """(n, d, h, w) -> (n, d * cells) by the mean in each cell of a grid; (n, tokens, d) -> (n, d) by the mean; (n, d) passes through."""
    if activation.ndim == 4:
        rows, columns = min(grid[0], activation.shape[2]), min(grid[1], activation.shape[3])
        if rows == columns == 1:
            return activation.mean((2, 3))
        down, right = divmod(activation.shape[2], rows), divmod(activation.shape[3], columns)
        even = down[1] == right[1] == 0  # the same cells, but faster
        return (avg_pool2d(activation, (down[0], right[0])) if even else adaptive_avg_pool2d(activation, (rows, columns))).flatten(1)
    return activation.mean(1) if activation.ndim == 3 else activation.flatten(1)


def roughness(activation: Tensor) -> Tensor:
    """(n, d, h, w) -> (n, d), the root mean square difference between neighbors, of which there are at least two; others as `pooled`."""
    if activation.ndim != 4 or activation.shape[2] * activation.shape[3] < 2:
        return pooled(activation)
    steps = [activation.diff(dim=dim).square().flatten(2) for dim in (2, 3)]
    return (torch.cat(steps, 2).mean(2) + torch.finfo(activation.dtype).tiny).sqrt()  # a flat map has a gradient too


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

    def keep_as(activation: Tensor) -> Tensor:
        if tap["way"] == "raw":
            return activation
        return roughness(activation) if tap["way"] else pooled(activation, grid)

    def keep(activation: Tensor) -> None:
        taken[layer] = keep_as(activation)

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
    if isinstance(samples, Remembered) and samples.memory.model is model:
        return samples.memory.trace(samples, layers)
    images = samples.images if isinstance(samples, Samples) else samples
    if not len(images):
        raise ValueError("images must not be empty")
    device = device_of(model)
    parts = [trace(model, to_float(batch.to(device)), layers) for batch in images.split(batch_size)]
    kept = {layer: torch.cat([p.activations[layer].float().cpu() for p in parts]) for layer in layers}
    return Trace(images, torch.cat([p.logits.float().cpu() for p in parts]), kept)


@dataclass(eq=False)
class Memory:
    """What a model, which must not change, made of some images: each layer is kept from when it is first asked for.

    Attributes:
        model: the model.
        images: (n, c, h, w).
        seen: the trace so far, on the CPU; None before the first.
    """

    model: nn.Module
    images: Tensor
    seen: Trace | None = None

    def trace(self, samples: Remembered, layers: Sequence[str]) -> Trace:
        """As `trace_all`, of samples that are some of the images."""
        known = {} if self.seen is None else self.seen.activations
        missing = tuple(layer for layer in layers if layer not in known)
        if self.seen is None or missing:
            new = trace_all(self.model, self.images, missing)
            self.seen = replace(new, activations={**known, **new.activations})
        kept = {layer: self.seen.activations[layer][samples.rows] for layer in layers}
        return Trace(samples.images, self.seen.logits[samples.rows], kept)


@dataclass(frozen=True, eq=False)
class Remembered(Samples):
    """Samples that `trace_all` runs through one model once, however often they, or parts of them, are asked for.

    Attributes:
        memory: of all of them.
        rows: (n,) int64 where in it these are.
    """

    memory: Memory = field(kw_only=True, repr=False)
    rows: Tensor = field(kw_only=True, repr=False)

    def __getitem__(self, index: Tensor | slice | Sequence[int]) -> Remembered:
        """The chosen samples, by mask, index tensor or slice."""
        chosen = super().__getitem__(index)
        return replace(self, **vars(chosen) | {"rows": self.rows[index if isinstance(index, slice) else torch.as_tensor(index).cpu()]})


def remembered(model: nn.Module, samples: Samples) -> Samples:
    """Samples that remember their traces, or the given ones if they do already or are more than `MEMORABLE`."""
    known = isinstance(samples, Remembered) and samples.memory.model is model
    if known or len(samples) > MEMORABLE:
        return samples
    plain = {name: getattr(samples, name) for name in ("images", "labels", "classes", "names")}
    return Remembered(**plain, memory=Memory(model, samples.images), rows=torch.arange(len(samples)))


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
