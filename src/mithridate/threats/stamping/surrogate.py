"""The attacker's own model, trained on the clean data or read from a file, and what it makes of images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mithridate import loops
from mithridate.checks import check_number, within
from mithridate.data import Samples, to_float
from mithridate.nn.ascent import Budget, ascend
from mithridate.nn.models import MODELS, initialize
from mithridate.nn.modes import has_fast_bf16
from mithridate.nn.resolve import resolve
from mithridate.nn.taps import last_hidden, trace, trace_all
from mithridate.roles import Progress, silent


@dataclass(frozen=True, kw_only=True)
class Attacker:
    """An attacker who has a model of their own to craft against.

    Attributes:
        surrogate: architecture of the model that is trained on the clean samples, or the path of a model file saved by mithridate.
        surrogate_epochs: passes over the clean samples to train it, at least 1; of no account for a file.
    """

    surrogate: str = "wrn_16_1"
    surrogate_epochs: int = 4

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "surrogate_epochs")

    def check(self, clean: Samples, target: int) -> None:
        """Refuse what nothing can be crafted from.

        Raises:
            ValueError: no samples, or a target that is no class.
        """
        if not len(clean):
            raise ValueError("clean must not be empty")
        check_number("target", target, f"[0, {len(clean.classes)})")

    def model(
        self, clean: Samples, layer: str = "", *, robust: Budget | None = None, seed: int = 0, progress: Progress = silent
    ) -> nn.Module:
        """The surrogate, in eval mode on the samples' device.

        Args:
            clean: n samples of the data that will be poisoned.
            layer: one that it must have, which is looked for before any training; empty for none.
            robust: train it on adversarial examples within this budget; of no account for a file.
            seed: of initialization and training.
            progress: told how far training is.

        Raises:
            ValueError: a surrogate that is unknown or does not take the samples, or a layer that it does not have.
            BadFile: a model file that is damaged or of other classes.
        """
        model = self._initial(clean, seed).to(clean.images.device)
        try:
            trace_all(model, exact(clean.images[:1]), [layer] if layer else [])
        except RuntimeError as error:
            raise ValueError(f"surrogate must take images of {tuple(clean.images.shape[1:])}, got {self.surrogate!r}") from error
        return self._trained(model, clean, robust, seed, progress) if self.surrogate in MODELS else model

    def _initial(self, clean: Samples, seed: int) -> nn.Module:
        """What training begins with, or what the file holds."""
        classes, (channels, _, width) = len(clean.classes), clean.images.shape[1:]
        if self.surrogate in MODELS:
            return initialize(self.surrogate, seed, classes=classes, channels=channels, size=width)
        if not Path(self.surrogate).is_file():
            raise ValueError(f"surrogate must be one of {', '.join(MODELS)} or a model file, got {self.surrogate!r}")
        return resolve(self.surrogate, classes=classes, channels=channels, size=width).model

    def _trained(self, model: nn.Module, clean: Samples, robust: Budget | None, seed: int, progress: Progress) -> nn.Module:
        images = clean.images if clean.images.dtype == torch.uint8 else clean.images.float()
        recipe = loops.Recipe(epochs=self.surrogate_epochs, pad=min(4, min(images.shape[2:]) // 8))
        hooks = loops.Hooks(progress=progress, task="training a surrogate")
        if robust is not None:
            hooks = replace(hooks, transform=adversarial(robust))
        return loops.train(model, replace(clean, images=images), recipe, seed=seed, hooks=hooks)


def adversarial(budget: Budget) -> loops.Transform:
    """The transform of adversarial training: each batch is replaced by its adversarial examples.

    Source: Madry et al. 2018, arXiv 1706.06083, section 2.1; few steps from a random start as in Wong et al. 2020, arXiv 2001.03994.
    """

    def transform(student: nn.Module, images: Tensor, labels: Tensor, epoch: int) -> Tensor:
        chance = torch.Generator().manual_seed(int(torch.randint(2**31, ())))  # the loop seeds and forks the global generator
        return ascend(student, images, labels, quick(budget, images.device), generator=chance).images

    return transform


def quick(budget: Budget, device: torch.device) -> Budget:
    """The budget with gradients in bf16, where those are fast."""
    return replace(budget, fast=has_fast_bf16(device))


def exact(images: Tensor) -> Tensor:
    """Images of any dtype as float32 in [0, 1], which is what a surrogate computes in."""
    return to_float(images).float()


def draw(samples: Samples, classes: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Float32 images (count, c, h, w), drawn without return from the given classes.

    Raises:
        ValueError: fewer such images than `count`.
    """
    rows = torch.isin(samples.labels.cpu(), classes).nonzero().flatten()
    if count > len(rows):
        of = f"class {int(classes)}" if len(classes) == 1 else f"{len(classes)} classes"
        raise ValueError(f"samples must be at most {len(rows):,}, as there are of {of}, got {count:,}")
    chosen = rows[torch.randperm(len(rows), generator=generator)[:count]]
    return exact(samples.images[chosen.to(samples.images.device)])


def hidden_layer(model: nn.Module, layer: str, image: Tensor) -> str:
    """`layer`, or the tap of the last hidden activations, found by running one image (1, c, h, w)."""
    return layer or last_hidden(model, image)


def features(model: nn.Module, images: Tensor, layer: str) -> Tensor:
    """Activations (n, d) of a layer, in bf16 where that is fast; gradients flow to the images.

    Raises:
        ValueError: the model has no such layer.
    """
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=has_fast_bf16(images.device)):
        return trace(model, images, [layer]).activations[layer].float()


def known_features(model: nn.Module, images: Tensor, layer: str) -> Tensor:
    """The same of any number of images, in full precision and without gradients, on their device.

    Raises:
        ValueError: the model has no such layer.
    """
    return trace_all(model, images, [layer]).activations[layer].to(images.device)
