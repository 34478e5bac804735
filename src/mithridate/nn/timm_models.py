"""Any architecture of the timm library by name, behind its own normalization."""

from __future__ import annotations

import difflib
import sys
from types import ModuleType
from typing import Any

import torch
from torch import nn

from mithridate.errors import BadSpec, MissingExtra
from mithridate.nn.models import Normalize

_STUBS: list[torch.library.Library] = []  # dropping a library would unregister its operations


def import_timm() -> ModuleType:
    """The timm package; where torchvision's compiled operations do not fit this PyTorch build, their names are declared first.

    Raises:
        MissingExtra: timm is not installed.
    """
    try:
        import_torchvision()
        import timm
    except ImportError as error:
        raise MissingExtra("timm", "vision") from error
    module: ModuleType = timm
    return module


def create_timm(name: str, *, classes: int | None, channels: int = 3, size: int | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """A timm model with random weights on images in [0, 1], and what timm knows about its pretrained weights.

    Args:
        name: timm's name, as in `resnet18` or `vit_tiny_patch16_224.augreg_in21k_ft_in1k`.
        classes: number of classes; as in the pretrained weights when None.
        channels: 1 or 3.
        size: height and width in pixels; as in the pretrained weights when None.

    Raises:
        MissingExtra: timm is not installed.
        BadSpec: an unknown name, or a size the architecture does not take.
    """
    timm = import_timm()
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise BadSpec(f"timm has no architecture {name!r}" + (f"; did you mean {' or '.join(close)}?" if close else ""))
    with torch.random.fork_rng(devices=[]):
        model = _create(timm, name, classes, channels, size)
    card = dict(model.pretrained_cfg)
    mean, std = (list(card.get(key) or default) for key, default in (("mean", (0.5,)), ("std", (0.25,))))
    if len(mean) != channels:
        mean, std = [sum(mean) / len(mean)] * channels, [sum(std) / len(std)] * channels
    return nn.Sequential(Normalize(mean, std), model), card


def _create(timm: ModuleType, name: str, classes: int | None, channels: int, size: int | None) -> Any:
    card = timm.models.get_pretrained_cfg(name)
    native = card.input_size[-1] if card is not None else None
    least = (card.min_input_size or (0,))[-1] if card is not None else 0
    if size is not None and size < least:
        raise BadSpec(f"timm:{name} needs images of at least {least} pixels, got {size}")
    extra: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if card is not None and card.fixed_input_size and size not in (None, native):
        extra["img_size"] = size
    try:
        return timm.create_model(name, pretrained=False, in_chans=channels, **extra)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise BadSpec(f"timm:{name} does not take {channels}x{size}x{size} images: {str(error).splitlines()[0][:120]}") from error


def import_torchvision() -> None:
    """Import torchvision, also where PyPI's CUDA-linked wheel meets a CPU build of PyTorch (pytorch/vision#9077).

    There its extension fails to load silently, and Python code that describes the extension's operations then fails loudly.
    """
    try:
        import torchvision

        return
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[module]
    library = torch.library.Library("torchvision", "DEF")
    for operation in ("nms", "qnms"):
        library.define(f"{operation}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _STUBS.append(library)
    import torchvision  # noqa: F401
