"""The shortest way onto a hyperplane that stays inside the box [0, 1].

    min |d|  with  w d = gap  and  0 <= x + d <= 1

Each coordinate moves by min(t * speed, room): room is what the box leaves it in the useful direction, the speed is 1 for L-inf and
|w| for L2. What this gains, w d, is a concave, piecewise linear function of t, whose root Newton's method finds from below in a few
exact steps. Source of the problem: Croce & Hein, ICML 2020, arXiv 1907.02044, section 3.1, equation 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 60  # pieces that are crossed one by one at worst; a handful is usual


def onto_plane(points: Tensor, slope: Tensor, gap: Tensor, norm: str) -> Tensor:
    """The smallest change (n, c, h, w) that gains `gap`, or, where the box forbids that, one that gains as much as there is.

    Args:
        points: (n, c, h, w) in [0, 1].
        slope: (n, c, h, w), the w of the hyperplane.
        gap: (n,) what w d must be; of either sign.
        norm: `linf` or `l2`.
    """
    x, w = points.flatten(1), slope.flatten(1)
    scale = w.abs().amax(1, keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)
    w, gap = w / scale, gap[:, None] / scale
    toward, weight = w.sign() * gap.sign(), w.abs()
    room = torch.where(toward > 0, 1 - x, x)
    speed = weight if norm == "l2" else (weight > 0).to(w.dtype)
    full, gain = weight * room, weight * speed
    time = torch.zeros_like(gap)
    for _ in range(ROUNDS):
        free = time * speed < room
        missing = gap.abs() - torch.where(free, time * gain, full).sum(1, keepdim=True)
        rate = (gain * free).sum(1, keepdim=True)
        open_still = (missing > 1e-6 * gap.abs()) & (rate > 0)
        if not bool(open_still.any()):
            break
        time = torch.where(open_still, time + missing / rate.clamp_min(torch.finfo(w.dtype).tiny), time)
    return (toward * torch.minimum(time * speed, room)).view_as(points)
