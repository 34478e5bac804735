"""Small, standard image classifiers for any image size and number of classes; normalization is the first layer."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mithridate.checks import check_number
from mithridate.errors import BadSpec

Build = Callable[[int, int, int], nn.Module]


class Normalize(nn.Module):
    """(x - mean) / std per channel, for images in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, c, h, w) in [0, 1] -> the same, normalized."""
        return (images - self.mean) / self.std


class WideBlock(nn.Module):
    """Pre-activation residual block; the shortcut is projected where shape or stride changes (Zagoruyko & Komodakis 2016)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(width_in), _conv3(width_in, width, stride)
        self.norm2, self.conv2 = nn.BatchNorm2d(width), _conv3(width, width)
        same = stride == 1 and width_in == width
        self.shortcut = nn.Identity() if same else nn.Conv2d(width_in, width, 1, stride, bias=False)
        self.projects = not same

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, width_in, h, w) -> (n, width, h / stride, w / stride)."""
        active = F.relu(self.norm1(x))
        hidden = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return torch.add(hidden, self.shortcut(active if self.projects else x))


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, d, h, w) -> the same shape."""
        return torch.add(x, self.body(x))


def _conv3(width_in: int, width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(width_in, width, 3, stride, 1, bias=False)


def _conv_norm(width_in: int, width: int, *after: nn.Module) -> nn.Sequential:
    return nn.Sequential(_conv3(width_in, width), nn.BatchNorm2d(width), nn.ReLU(), *after)


def _head(width: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]


def _wide(depth: int, factor: int, blocks_widths: Sequence[int] = (16, 32, 64)) -> Build:
    def build(classes: int, channels: int, size: int) -> nn.Module:
        blocks, width, layers = (depth - 4) // 6, 16, [_conv3(channels, 16)]
        stages: list[nn.Module] = []
        for stage, base in enumerate(blocks_widths):
            steps = []
            for i in range(blocks):
                steps.append(WideBlock(width, base * factor, 2 if stage and not i else 1))
                width = base * factor
            stages.append(nn.Sequential(*steps))
        return nn.Sequential(*layers, *stages, nn.BatchNorm2d(width), nn.ReLU(), *_head(width, classes))

    return build


def _preact_resnet18(classes: int, channels: int, size: int) -> nn.Module:
    width, layers = 64, [_conv3(channels, 64)]
    stages: list[nn.Module] = []
    for stage, out in enumerate((64, 128, 256, 512)):
        stages.append(nn.Sequential(WideBlock(width, out, 2 if stage else 1), WideBlock(out, out, 1)))
        width = out
    return nn.Sequential(*layers, *stages, nn.BatchNorm2d(width), nn.ReLU(), *_head(width, classes))


def _resnet9(classes: int, channels: int, size: int) -> nn.Module:
    pool = nn.MaxPool2d(2)
    return nn.Sequential(
        _conv_norm(channels, 64),
        _conv_norm(64, 128, pool),
        Residual(_conv_norm(128, 128), _conv_norm(128, 128)),
        _conv_norm(128, 256, pool),
        _conv_norm(256, 256, pool),
        Residual(_conv_norm(256, 256), _conv_norm(256, 256)),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(256, classes),
    )


def _vgg11_bn(classes: int, channels: int, size: int) -> nn.Module:
    layers: list[nn.Module] = []
    width = channels
    for out, halve in ((64, 1), (128, 1), (256, 0), (256, 1), (512, 0), (512, 1), (512, 0), (512, 1)):
        layers.append(_conv_norm(width, out, *([nn.MaxPool2d(2, ceil_mode=True)] if halve else [])))
        width = out
    return nn.Sequential(*layers, *_head(width, classes))


def _lenet(classes: int, channels: int, size: int) -> nn.Module:
    flat = 64 * (size // 4) ** 2
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(flat, 128), nn.ReLU(), nn.Linear(128, classes)),
    )


def _jin_cnn(classes: int, channels: int, size: int) -> nn.Module:
    """Two convolutions and two dense layers, as Jin et al. 2020 use on MNIST (from their released code)."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16 * (size // 4) ** 2, 512), nn.ReLU(), nn.Linear(512, classes)),
    )


def _gtsrb_cnn(classes: int, channels: int, size: int) -> nn.Module:
    """Six convolutions in three stages and a dense layer, as Neural Cleanse and its followers use on GTSRB."""
    layers: list[nn.Module] = []
    width = channels
    for out in (32, 64, 128):
        layers += [nn.Conv2d(width, out, 3, padding=1), nn.ReLU(), nn.Conv2d(out, out, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2), nn.Dropout(0.2)]
        width = out
    flat = 128 * (size // 8) ** 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, classes))


MODELS: dict[str, Build] = {
    "lenet": _lenet,
    "jin_cnn": _jin_cnn,
    "gtsrb_cnn": _gtsrb_cnn,
    "wrn_16_1": _wide(16, 1),
    "wrn_16_2": _wide(16, 2),
    "preact_resnet18": _preact_resnet18,
    "resnet9": _resnet9,
    "vgg11_bn": _vgg11_bn,
}


def create(
    name: str,
    *,
    classes: int,
    channels: int = 3,
    size: int = 32,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """A freshly initialized classifier that takes float images (n, channels, size, size) in [0, 1].

    Args:
        name: one of `MODELS`.
        classes: number of classes, at least 2.
        channels: 1 or 3.
        size: height and width in pixels, at least 8.
        mean: per-channel mean of the first, normalizing layer; 0.5 when not given.
        std: per-channel standard deviation of the same; 0.25 when not given.

    Raises:
        BadSpec: an unknown name.
        ValueError: a size, channel or class count out of range.
    """
    if name not in MODELS:
        close = difflib.get_close_matches(name, MODELS, n=3) or sorted(MODELS)
        raise BadSpec(f"architecture {name!r} is unknown; known: {', '.join(close)}")
    check_number("classes", classes, "[2, inf)")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    check_number("size", size, "[8, inf)")
    normalize = Normalize(mean or [0.5] * channels, std or [0.25] * channels)
    return nn.Sequential(normalize, MODELS[name](classes, channels, size))


def initialize(name: str, seed: int, **shape: int) -> nn.Module:
    """`create`, with weights drawn from a seed and the global generator left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create(name, **shape)  # type: ignore[arg-type]
