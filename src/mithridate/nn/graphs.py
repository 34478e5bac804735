"""A graph of tensor operations as plain data, and the module that runs it.

Linear layers, convolutions and batch norms become the ordinary modules, so that layers can be tapped and repaired.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Ref:
    """The value of this name."""

    name: str


class Call(nn.Module):
    """One call of a tensor operation."""

    def __init__(self, call: Callable[..., Any], name: str) -> None:
        super().__init__()
        self.call, self.name = call, name

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Whatever the operation gives."""
        return self.call(*args, **kwargs)

    def extra_repr(self) -> str:
        """The operation's name."""
        return self.name

    def __deepcopy__(self, memo: dict[int, Any]) -> Call:
        return Call(self.call, self.name)


@dataclass(frozen=True)
class Step:
    """One node of the graph: which layer runs on which values, what its results are called, which names are no longer needed."""

    layer: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[str, ...]
    many: bool
    dead: tuple[str, ...] = ()


class ExportedModel(nn.Module):
    """A network read from a `torch.export` archive: images (n, c, h, w) in [0, 1] -> logits (n, classes)."""

    def __init__(self, layers: dict[str, nn.Module], state: dict[str, Tensor], steps: tuple[Step, ...], ends: tuple[str, str]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.tensors = nn.Module()
        self.steps, self.ends, self.names = steps, ends, tuple(state)
        for i, tensor in enumerate(state.values()):
            if isinstance(tensor, nn.Parameter):
                self.tensors.register_parameter(f"t{i}", tensor)
            else:
                self.tensors.register_buffer(f"t{i}", tensor)

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, c, h, w) in [0, 1] -> logits (n, classes)."""
        values: dict[str, Any] = {name: getattr(self.tensors, f"t{i}") for i, name in enumerate(self.names)}
        values[self.ends[0]] = images
        for step in self.steps:
            result = self.layers[step.layer](*_fill(step.args, values, images), **_fill(step.kwargs, values, images))
            values.update(zip(step.outputs, result if step.many else (result,), strict=True))
            for name in step.dead:
                values.pop(name, None)
        logits: Tensor = values[self.ends[1]]
        return logits


def refs(value: Any) -> list[Ref]:
    """All references inside an argument, however nested."""
    if isinstance(value, Ref):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [ref for item in items for ref in refs(item)]


def _fill(value: Any, values: dict[str, Any], images: Tensor) -> Any:
    """Put computed values in the place of references, and the images' device in the place of any device."""
    if isinstance(value, Ref):
        return values[value.name]
    if isinstance(value, torch.device):
        return images.device
    if isinstance(value, dict):
        return {key: _fill(item, values, images) for key, item in value.items()}
    return type(value)(_fill(item, values, images) for item in value) if isinstance(value, (list, tuple)) else value


def with_dead(steps: list[Step], last: str) -> tuple[Step, ...]:
    """Each step with the names that nothing after it reads, so that activations are freed as early as possible."""
    needed, done = {last}, []
    for step in reversed(steps):
        reads = {ref.name for ref in (*refs(step.args), *refs(step.kwargs))}
        dead = tuple(sorted((reads | set(step.outputs)) - needed))
        done.append(Step(step.layer, step.args, step.kwargs, step.outputs, step.many, dead))
        needed |= reads
    return tuple(reversed(done))


def lift(
    call: Callable[..., Any], inputs: dict[str, Any], state: dict[str, Tensor], target: str
) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """The ordinary module for a linear layer, convolution or batch norm whose weights are all stored; a `Call` for the rest."""
    own = {key: state.get(value.name) for key, value in inputs.items() if isinstance(value, Ref) and key != "input"}
    build = {"linear": _linear, "conv2d": _conv2d, "batch_norm": _batch_norm}.get(base_name(target))
    weight = own.get("weight")
    if build is not None and isinstance(weight, nn.Parameter) and all(tensor is not None for tensor in own.values()):
        layer = build(weight, inputs)
        for key, tensor in own.items():
            setattr(layer, key, tensor)
        return layer, (inputs["input"],), {}
    # Modules cannot take an argument named `self`, so everything up to it goes by position.
    names = list(inputs)
    count = len(names) if target.startswith("_operator") else names.index("self") + 1 if "self" in names else 0
    return Call(call, target), tuple(inputs[name] for name in names[:count]), {name: inputs[name] for name in names[count:]}


def _linear(weight: Tensor, inputs: dict[str, Any]) -> nn.Module:
    return nn.Linear(weight.shape[1], weight.shape[0], bias=inputs.get("bias") is not None, device="meta")


def _conv2d(weight: Tensor, inputs: dict[str, Any]) -> nn.Module:
    groups, padding, bias = inputs.get("groups", 1), inputs.get("padding", [0, 0]), inputs.get("bias") is not None
    height, width = weight.shape[2:]
    layer = nn.Conv2d(weight.shape[1] * groups, weight.shape[0], (height, width), groups=groups, bias=bias, device="meta")
    layer.padding = padding if isinstance(padding, str) else tuple(padding)
    layer.stride, layer.dilation = tuple(inputs.get("stride", [1, 1])), tuple(inputs.get("dilation", [1, 1]))
    return layer


def _batch_norm(weight: Tensor, inputs: dict[str, Any]) -> nn.Module:
    return nn.BatchNorm2d(len(weight), eps=inputs["eps"], momentum=inputs["momentum"])


def base_name(target: str) -> str:
    """`conv2d` of `torch.ops.aten.conv2d.default`."""
    return target.split(".")[-2] if target.startswith("torch.") else target.rpartition(".")[2]
