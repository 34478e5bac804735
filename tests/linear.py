"""Linear classifiers, whose nearest adversarial example is known exactly."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SHAPES = [((1, 8, 8), 1), ((1, 8, 8), 64), ((3, 12, 10), 1), ((3, 12, 10), 64), ((3, 32, 32), 1), ((3, 32, 32), 64)]


class Linear(nn.Module):
    """Logits w x + b of the flattened image."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        size = shape[0] * shape[1] * shape[2]
        self.weight = nn.Parameter(torch.randn(classes, size, generator=generator) / size**0.5)
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5).flatten(1) @ self.weight.T + self.bias


def problem(shape: tuple[int, int, int], count: int, classes: int = 6, alive: int | None = None) -> tuple[Linear, Tensor, Tensor]:
    """A linear model and correctly classified images, near a boundary and away from the walls of the box.

    With `alive`, only so many classes are ever near; the others are far below.
    """
    model = Linear(shape, classes)
    images = (0.5 + 0.1 * torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))).clamp(0.25, 0.75)
    with torch.no_grad():
        model.bias[alive or classes :] = -100
        return model, images, model(images).argmax(1)


@torch.no_grad()
def radii(model: Linear, images: Tensor, labels: Tensor, norm: str, targets: Tensor | None = None) -> Tensor:
    """Exact distance (n,) to the nearest wrong class, as long as no wall of the box is in the way.

    With targets, the distance to the plane between the two classes: exact where those two are the only ones alive.
    """
    logits, order = model(images), 1 if norm == "linf" else 2
    gaps = logits.gather(1, labels[:, None]) - logits
    slopes = (model.weight[labels][:, None] - model.weight[None]).norm(p=order, dim=2)
    each = (gaps / slopes).scatter(1, labels[:, None], torch.inf)
    return each.amin(1) if targets is None else each.gather(1, targets[:, None])[:, 0]
