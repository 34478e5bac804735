"""What attackers who control training share: a recipe with a target, relabeled shares of a batch, and networks that make triggers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mithridate import loops
from mithridate.checks import within
from mithridate.data import Samples
from mithridate.nn.modes import device_of

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Planting(loops.Recipe):
    """A training recipe with a backdoor in it.

    Attributes:
        target: class index that the trigger leads to.
    """

    target: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "[0, inf)", "target")

    def check(self, clean: Samples) -> None:
        """Refuse a target that the data do not have.

        Raises:
            ValueError: the target is not a class.
        """
        within(self, f"[0, {len(clean.classes)})", "target")

    def relabel(self, labels: Tensor, count: int) -> Tensor:
        """Labels (n,) with the target in place of the first `count`."""
        return torch.cat([torch.full_like(labels[:count], self.target), labels[count:]])


def share(rate: float, count: int) -> int:
    """How many of `count` images a rate means, at least one: batches are in random order, so the first ones are a random share."""
    return max(1, round(rate * count))


class Painter(nn.Module):
    """An encoder and decoder with skip connections, from images of any size to maps of the same size, before any squashing.

    Three resolutions of `width`, twice and four times as many channels: 0.4 times the cost of a WRN-16-1 at the default width, where
    the papers' networks cost several times their classifier.

    Args:
        channels: of the images.
        out: channels of the map.
        width: channels at full resolution.
    """

    def __init__(self, channels: int, out: int, width: int = 16) -> None:
        super().__init__()
        self.stem = _layer(channels, width)
        self.down = nn.ModuleList([_layer(width, 2 * width, 2), _layer(2 * width, 4 * width, 2)])
        self.middle = _layer(4 * width, 4 * width)
        self.up = nn.ModuleList([_layer(4 * width, 2 * width), _layer(2 * width, width)])
        self.last = nn.Conv2d(width, out, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, channels, h, w) in [0, 1] -> (n, out, h, w), unbounded."""
        full = self.stem((images - 0.5) / 0.25)
        half = self.down[0](full)
        quarter = self.down[1](half)
        quarter = quarter + self.middle(quarter)
        half = half + F.interpolate(self.up[0](quarter), size=half.shape[2:])
        full = full + F.interpolate(self.up[1](half), size=full.shape[2:])
        painted: Tensor = self.last(full)
        return painted


def painter(seed: int, channels: int, out: int) -> Painter:
    """A `Painter` with weights drawn from a seed and the global generator left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Painter(channels, out)


def sealed(trigger: _Module, state: Mapping[str, Tensor]) -> _Module:
    """The trigger with the given state and on its device, in eval mode, its weights out of any gradient's reach."""
    trigger.to(next(iter(state.values())).device).load_state_dict(state)
    return trigger.eval().requires_grad_(False)


def by_parts(network: nn.Module, make: Callable[..., Tensor], images: Tensor, *others: Tensor) -> Tensor:
    """`make(images, *others)` in float32 where the network is, at most 256 images at once, given back as the images came."""
    device = device_of(network)
    parts = zip(*(tensor.split(256) for tensor in (images, *others)), strict=True)
    return torch.cat([make(*(each.to(device, torch.float32) for each in part)).to(images) for part in parts])


def _layer(width_in: int, width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width_in, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
