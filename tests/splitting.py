"""A net of two classes whose features are the pixels, for tests that work out a detector's scores by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Split(nn.Module):
    """Takes images 1 x 4 x 4; class 1 where the first pixel is bright, whatever the others are."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.head = nn.Flatten(), nn.Linear(16, 2)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[1, 0], self.head.bias[1] = 20.0, -10.0
            self.head.bias[0] = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flat(x))
