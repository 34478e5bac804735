"""What a detector compares with: which layers say something new, and which clean images stand for which class."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mithridate.data import Samples, to_float
from mithridate.nn.modes import device_of
from mithridate.nn.taps import HEADS, tapped, trace


def distinct(activations: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The layers, in order, whose activations are not a later one's too, as a feature map's are that is averaged next.

    Args:
        activations: layer -> tensor of any shape.
    """
    kept: list[str] = []
    for layer in reversed(list(activations)):
        mine, others = activations[layer], [activations[other] for other in kept]
        if not any(mine.shape == other.shape and torch.allclose(mine, other) for other in others):
            kept.append(layer)
    return tuple(reversed(kept))


def representatives(labels: Tensor, classes: int, least: int) -> Tensor:
    """Which images stand for each class, as bool (classes, n): its own, or all of them where these are fewer than `least`.

    Args:
        labels: (n,) int64.
        classes: logits of the model.
        least: images that can describe a class.

    Raises:
        ValueError: labels that the model has no logit for.
    """
    if int(labels.max()) >= classes:
        raise ValueError(f"labels must lie in [0, {classes}), as many as the model has logits, got {int(labels.max())}")
    member = labels == torch.arange(classes, device=labels.device)[:, None]
    return member | (member.sum(1) < least)[:, None]


def balanced(labels: Tensor, most: int, seed: int) -> Tensor:
    """Rows (m,), ascending, of m <= `most` images drawn at random: as many of each class, as far as there are.

    Args:
        labels: (n,) int64, on the CPU.
        most: images to keep; all of them where there are no more.
        seed: of the draw.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    turn = torch.empty_like(order)
    for label in labels.unique():
        own = labels[order] == label
        turn[own] = torch.arange(int(own.sum()))
    return order[turn.argsort(stable=True)[:most]].sort().values


def kept(clean: Samples, most: int, seed: int) -> Samples:
    """At most so many of the images, drawn from `seed`, the classes as balanced as they can be; others are not even read."""
    return clean if len(clean) <= most else clean[balanced(clean.labels.cpu(), most, seed).to(clean.labels.device)]


def weighed(model: nn.Module, images: Tensor, most: int, grids: tuple[str, str] = ("@8x8", "@4x4")) -> tuple[str, ...]:
    """Taps of the images and of what goes into the layers with weights, in the order they run; at most so many, spread evenly.

    Inputs that are the same, as of a convolution and its shortcut, count once. The last is what the logits are made of.

    Args:
        model: takes float images in [0, 1] and gives logits.
        images: a few (n, c, h, w) to run, floats in [0, 1] or uint8.
        most: taps, at least 2.
        grids: ends of the taps, of the images and of the others; empty for the means of channels.

    Raises:
        ValueError: a model that does not return finite logits.
    """
    names = [f"{name}@input{grids[1]}" for name, module in model.named_modules() if isinstance(module, HEADS)]
    with torch.no_grad(), tapped(model, names) as taken:
        trace(model, to_float(images.to(device_of(model))))
    later = distinct(taken)[1:]  # the first reads the images
    chosen = torch.linspace(0, len(later), min(most, len(later) + 1)).round().long().tolist()
    return tuple((f"@input{grids[0]}", *later)[i] for i in chosen)
