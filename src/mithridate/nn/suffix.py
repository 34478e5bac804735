"""The end of a model from some layer on, run for many sets of weights at once while everything before it runs once.

Where the modules from that layer on form a chain, each reading just what the one before gave, the chain is run alone, on the
layer's input; otherwise the whole model is.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mithridate.data import to_float
from mithridate.nn.modes import check_logits, device_of, evaluating
from mithridate.nn.taps import Trace

LAYERS = (nn.Linear, nn.Conv2d)
RAW = "@input@raw"
CELLS = 2**22  # weights and activations held at once


@dataclass(frozen=True, eq=False)
class Run:
    """One call of a module that has none inside it: its name, and what went in and came out, each with its version."""

    name: str
    given: tuple[object, int]
    gave: tuple[object, int]


@dataclass(frozen=True, eq=False)
class Suffix:
    """What has to run again when the weights of some layers change.

    Attributes:
        module: a chain of the model's own modules, or the whole model.
        tap: the tap that holds its input; empty for the images.
        layers: names in `module` of the layers whose weights change.
    """

    module: nn.Module
    tap: str
    layers: tuple[str, ...]

    @classmethod
    def of(cls, model: nn.Module, taps: Sequence[str]) -> Suffix:
        """The suffix that taps made by `suffix_taps` describe."""
        names = [tap.partition("@")[0] for tap in taps]
        if not taps[0].endswith(RAW):
            return cls(model, "", tuple(names))
        chain = nn.Sequential(*(model.get_submodule(name) for name in names))
        return cls(chain, taps[0], tuple(str(i) for i, tap in enumerate(taps) if "@" in tap))

    def weights(self) -> dict[str, Tensor]:
        """The model's own weights, and biases where there are any, by their names in `module`; without gradients."""
        found = {name: self.module.get_submodule(name)._parameters for name in self.layers}
        pairs = [(f"{name}.{key}", own.get(key)) for name, own in found.items() for key in ("weight", "bias")]
        return {name: weight.detach() for name, weight in pairs if weight is not None}

    def given(self, seen: Trace) -> Tensor:
        """Its input, of a trace."""
        return seen.activations[self.tap] if self.tap else seen.images

    def logits(self, stack: Mapping[str, Tensor], given: Tensor, *, together: bool) -> Tensor:
        """Logits (k, n, classes) under k sets of weights, in eval mode; gradients flow to what is given.

        Args:
            stack: names as from `weights` -> (k, ...) the weights instead of the model's own.
            given: (n, ...) the input.
            together: by products over all sets at once, or else one set after the other.
        """
        with evaluating(self.module):
            if together:  # what does not depend on the weights is computed once
                logits: Tensor = torch.vmap(lambda weights: functional_call(self.module, weights, (given,)))(dict(stack))
                return logits
            rows = [dict(zip(stack, row, strict=True)) for row in zip(*stack.values(), strict=True)]
            return torch.stack([functional_call(self.module, row, (given,)) for row in rows])

    def most(self, images: int) -> int:
        """How many sets of weights to run at once, so that memory stays bounded."""
        weights = self.weights().values()
        return max(1, CELLS // (sum(w.numel() for w in weights) + images * sum(len(w) for w in weights)))

    @torch.no_grad()
    def can_batch(self, given: Tensor) -> bool:
        """Whether all sets of weights may be run at once: the layers are linear, and the result is that of one after the other."""
        if not all(isinstance(self.module.get_submodule(name), nn.Linear) for name in self.layers):
            return False
        stack = {name: torch.stack([weight, -weight]) for name, weight in self.weights().items()}
        each = self.logits(stack, given, together=False)
        try:
            return torch.allclose(self.logits(stack, given, together=True), each, rtol=1e-3, atol=1e-4 * float(each.abs().max()))
        except RuntimeError:  # an operation that cannot be batched, as one that looks at values
            return False


@torch.no_grad()
def suffix_taps(model: nn.Module, image: Tensor, layers: Sequence[str] = ()) -> tuple[str, ...]:
    """Taps that describe a suffix: of the input of each layer whose weights change, and of the output of what runs between them.

    The first is raw if the suffix is a chain of modules; else there is nothing between, and the whole model has to run.

    Args:
        model: takes float images in [0, 1].
        image: one of them (1, c, h, w), which is run once.
        layers: linear layers and convolutions. When not given, the linear layers that see one vector an image and run after
            the last layer that sees more, as every convolution does; the last layer of all if there is none.

    Raises:
        ValueError: a layer that the model has not, that has no plain weights or that does not run, or a model that does not
            return finite logits or has no layer to change.
    """
    runs, logits = _watch(model, image)
    heads = {name: module for name, module in model.named_modules() if isinstance(module, LAYERS) and "weight" in module._parameters}
    order = list(dict.fromkeys(run.name for run in runs if run.name in heads))
    chosen = layers or _dense(runs, heads)
    for layer in chosen:
        if layer not in order:
            close = ", ".join(difflib.get_close_matches(layer, order, n=3)) or "none"
            raise ValueError(f"layers must name linear layers or convolutions that run, got {layer!r}; close names: {close}")
    changing = [name for name in order if name in chosen]
    chain = _chain(runs, changing[0], logits)
    if not chain:
        return tuple(f"{name}@input" for name in changing)
    return (changing[0] + RAW, *(f"{name}@input" if name in changing else name for name in chain[1:]))


def _watch(model: nn.Module, image: Tensor) -> tuple[list[Run], Tensor]:
    """What ran, in order, and the logits."""
    names = {module: name for name, module in model.named_modules() if not len(module._modules)}
    given: list[tuple[object, int]] = []
    runs: list[Run] = []

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given.append(_version(args[0] if len(args) == 1 and not kwargs else None))

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        runs.append(Run(names[module], given[-1], _version(output)))

    handles = [module.register_forward_pre_hook(before, with_kwargs=True) for module in names]
    handles += [module.register_forward_hook(after) for module in names]
    try:
        with evaluating(model):
            logits = check_logits(model(to_float(image.to(device_of(model)))), len(image))
    finally:
        for handle in handles:
            handle.remove()
    return runs, logits


def _version(value: object) -> tuple[object, int]:
    """A tensor, and how often it was written to: together they tell whether a later module reads just this."""
    return (value, value._version) if isinstance(value, Tensor) else (object(), 0)


def _same(a: tuple[object, int], b: tuple[object, int]) -> bool:
    return a[0] is b[0] and a[1] == b[1]


def _dense(runs: list[Run], heads: Mapping[str, nn.Module]) -> tuple[str, ...]:
    tail: list[str] = []
    ran = [run for run in runs if run.name in heads]
    for run in ran:
        vector = isinstance(heads[run.name], nn.Linear) and isinstance(run.given[0], Tensor) and run.given[0].ndim == 2
        tail = [*tail, run.name] if vector else []
    if not ran:
        raise ValueError("model must contain a linear or convolutional layer that runs")
    return tuple(tail) or (ran[-1].name,)


def _chain(runs: list[Run], first: str, logits: Tensor) -> tuple[str, ...]:
    """The modules from `first` to the logits, or none if they form no chain."""
    names = [run.name for run in runs]
    start = names.index(first)
    tail = runs[start:]
    linked = all(_same(a.gave, b.given) for a, b in pairwise(tail)) and _same(tail[-1].gave, _version(logits))
    once = all(names.count(run.name) == 1 for run in tail)
    return tuple(names[start:]) if linked and once and isinstance(tail[0].given[0], Tensor) else ()
