"""Borrow a model without leaving a mark: mode, gradient flags and device in one place."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mithridate.data import Samples, to_float
from mithridate.errors import NotFinite


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode, each submodule put back into its own mode afterwards, also on error."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode with no gradient towards its weights; gradients towards its inputs still flow."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        with evaluating(model):
            yield model
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def clone(model: nn.Module) -> nn.Module:
    """A deep copy whose weights can be trained."""
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.requires_grad_(True)
    return twin


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights are; the CPU for a model without any."""
    tensor = next(iter(model.parameters()), next(iter(model.buffers()), None))
    return tensor.device if tensor is not None else torch.device("cpu")


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than fp32 there: any GPU since Ampere, CPUs with AMX, and those with AVX512-BF16 that Intel did not make.

    Trainings on Intel's AVX512-BF16 alone (AMX hidden, as on some virtual machines) ran at 0.73 to 0.78 of the speed of fp32.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        flags: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # an older PyTorch cannot say
        intel = "intel" in str(flags.get("cpu_name", "")).lower()
        return bool(flags.get("amx_bf16") or (flags.get("avx512_bf16") and not intel))
    return False


@torch.no_grad()
def fast_layout(model: nn.Module, images: Tensor, *, bf16: bool) -> torch.memory_format | None:
    """The faster memory layout of images in which the model runs; None if in neither, such as a model that mixes types in bf16.

    Models that flatten their features with `view` cannot take channels-last.

    Args:
        model: takes float images.
        images: a few of them (n, c, h, w), of which two are tried.
        bf16: whether it shall run in bf16 autocast.
    """
    for layout in (torch.channels_last, torch.contiguous_format):
        try:
            with evaluating(model), torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
                model(images[:2].contiguous(memory_format=layout))
        except RuntimeError:
            continue
        return layout
    return None


def check_logits(logits: object, count: int) -> Tensor:
    """The logits (n, classes), or a clear complaint about what the model gave instead.

    Raises:
        ValueError: not a tensor, or a wrong shape.
        NotFinite: values that are not finite.
    """
    if not isinstance(logits, Tensor):
        raise ValueError(f"model must return a tensor of logits (n, classes), got {type(logits).__name__}")
    if logits.ndim != 2 or logits.shape[0] != count:
        raise ValueError(f"model must return logits of shape ({count}, classes), got {tuple(logits.shape)}")
    if not torch.compiler.is_compiling() and not bool(torch.isfinite(logits.detach()).all()):  # values are not known while exporting
        raise NotFinite("model must return finite logits, got NaN or infinity")
    return logits


@torch.no_grad()
def predict(model: nn.Module, samples: Samples | Tensor, batch_size: int = 256) -> Tensor:
    """Logits (n, classes) of a model in eval mode, in fp32 on the CPU.

    Raises:
        ValueError: the model does not return finite logits, or there are no images.
    """
    images = samples.images if isinstance(samples, Samples) else samples
    if not len(images):
        raise ValueError("images must not be empty")
    device, out = device_of(model), []
    with evaluating(model):
        for batch in images.split(batch_size):
            out.append(check_logits(model(to_float(batch.to(device))), len(batch)).float().cpu())
    return torch.cat(out)
