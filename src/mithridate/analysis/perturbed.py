"""Perturbed copies of clean images: what a detector that has to see attacks learns from, when nobody gives it any."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mithridate.data import Samples
from mithridate.nn.ascent import Budget, ascend
from mithridate.nn.modes import device_of


def adversarial_and_noisy(
    model: nn.Module, clean: Samples, budget: Budget, generator: torch.Generator, batch_size: int = 256
) -> tuple[Tensor, Tensor, Tensor]:
    """Of every clean image an adversarial example, a noisy copy as far from it in L2, and whether the former fools the model.

    The noise is Gaussian; clipping to [0, 1] can make it a little shorter. An image that the model has wrong already counts as
    fooling it. Source of the pairing: Feinman et al. 2017, arXiv 1703.00410, section 5.

    Args:
        model: takes float images in [0, 1]; bit-identical afterwards.
        clean: n images.
        budget: of the adversarial examples; without a random start.
        generator: of the noise, on the CPU.
        batch_size: images perturbed at once.

    Returns:
        Float images (n, c, h, w) in [0, 1] twice, and bool (n,), on the CPU.

    Raises:
        ValueError: as for `ascend`.
    """
    device, parts = device_of(model), []
    for images, labels in clean.batches(batch_size):
        found = ascend(model, images.to(device), labels.to(device), budget)
        made, plain = found.images.cpu(), images.cpu()
        noise = torch.randn(plain.shape, generator=generator, dtype=plain.dtype)
        scale = (made - plain).flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1)
        parts.append((made, (plain + scale[:, None, None, None] * noise).clamp(0, 1), found.fooled.cpu()))
    made, noisy, fooled = (torch.cat(each) for each in zip(*parts, strict=True))
    return made, noisy, fooled


def told_apart(usual: Tensor, unusual: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (d,) and bias, a scalar, of the logistic regression that tells rows (m, d) from usual ones (n, d), both alike in weight."""
    from sklearn.linear_model import LogisticRegression

    rows = torch.cat([usual, unusual]).cpu()
    found = LogisticRegression(class_weight="balanced").fit(rows.numpy(), torch.arange(len(rows)) >= len(usual))
    weight, bias = torch.from_numpy(found.coef_[0]), torch.from_numpy(found.intercept_)[0]
    return weight.to(usual), bias.to(usual)
