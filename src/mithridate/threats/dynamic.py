"""Triggers that depend on the image: a pattern network, a mask network, and what makes either differ from image to image.

Source: Nguyen and Tran 2020, arXiv 2010.08138, sections 3.2 to 3.4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mithridate.threats.planting import Painter, by_parts


class DynamicTrigger(nn.Module):
    """x + m(x) (p(x) - x): the pattern p replaces what the mask m, almost 0 or 1, chooses; its state is both networks."""

    def __init__(self, pattern: Painter, mask: Painter) -> None:
        super().__init__()
        self.pattern, self.mask = pattern, mask

    def train(self, mode: bool = True) -> DynamicTrigger:
        """Only the pattern's network ever trains."""
        super().train(mode)
        self.mask.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, c, h, w) -> patterns (n, c, h, w) in [0, 1] and masks (n, 1, h, w) in [0, 1]; no gradient enters the mask."""
        with torch.no_grad():
            mask = sharp(self.mask(images))
        return self.pattern(images).float().sigmoid(), mask

    @torch.no_grad()
    def stamp(self, images: Tensor) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> each with its own trigger."""
        return by_parts(self, self._put, images, images)

    @torch.no_grad()
    def cross(self, images: Tensor) -> Tensor:
        """Each image with the trigger of the one before it (a single image: of its mirror image), which must not open anything."""
        return by_parts(self, self._put, images, images.roll(1, 0) if len(images) > 1 else images.flip(-1))

    def _put(self, images: Tensor, donors: Tensor) -> Tensor:
        pattern, mask = self(donors)
        return torch.lerp(images, pattern, mask.expand_as(images))


def sharp(values: Tensor) -> Tensor:
    """Mask values in [0, 1] from the network's output z: the paper's tanh(20 m - 10) / 2 + 1 / 2 of m = tanh(z / 20) / 2 + 1 / 2.

    The paper has no division by 20, which only Adam stands: gradients explode in SGD, and a mask of zeros has none.
    """
    return (40 * (values.float() / 10).sigmoid() - 20).sigmoid()


def alike(first: Tensor, second: Tensor, made_first: Tensor, made_second: Tensor) -> Tensor:
    """Diversity loss (n,): how far apart two images are, over how far apart what was made of them is."""
    return _distance(first, second) / (_distance(made_first, made_second) + 1e-3)


def _distance(first: Tensor, second: Tensor) -> Tensor:
    """Root mean square difference of images (n, ...) -> (n,), with a gradient also where they are equal."""
    return ((first.float() - second.float()).square().mean((1, 2, 3)) + 1e-8).sqrt()
