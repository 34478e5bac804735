"""A small analysis with known numbers, for tests of its page."""

from __future__ import annotations

import torch
from torch import Tensor

from mithridate.views.analysis import Analysis, Depth, Gap, Kind, Level, Measure, Population

NAMES: dict[str, Kind] = {"clean images": "benign", "pgd:eps=0.03": "adversarial", "<b>badnets</b>": "backdoor"}
LAYERS = ("@input@8x8", "block1", "block2", "head@input")


def analysis(count: int = 120) -> Analysis:
    """Three populations of which the second is unstable and the third is stable, with switches in the last two layers."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    labels = torch.arange(count) % 10
    images = torch.rand(count, 1, 8, 8, generator=generator)
    populations = tuple(Population(name, kind, images, labels, count + i) for i, (name, kind) in enumerate(NAMES.items()))
    predicted = {name: labels if i == 0 else torch.zeros_like(labels) for i, name in enumerate(NAMES)}
    levels = tuple(
        Level(s, s == 1.0, {n: (0.3 * s + (0.0, 0.4, -0.2)[i] * s + 0.05 * noise(count)).clamp(0, 1) for i, n in enumerate(NAMES)})
        for s in (0.25, 0.5, 1.0)
    )
    depths = tuple(
        Depth(layer, {n: labels if depth < 2 else predicted[n] for n in NAMES}, {n: noise(count, 2) + i for i, n in enumerate(NAMES)})
        for depth, layer in enumerate(LAYERS)
    )
    density = Measure("feature space", "log density", "lower is stranger", {n: -3.0 * i + noise(count) for i, n in enumerate(NAMES)})
    rate = Measure("sensitivity", "label-change rate", "", dict(levels[-1].rates))
    names = list(NAMES)
    gaps = [Gap(each.view, each.name, names[0], other, 0.9, 0.5, 0.005) for each in (rate, density) for other in names[1:]]
    gaps.append(Gap("activation space", "block2", names[0], names[1], None, 0.25, 0.2))
    return Analysis(
        "net.safetensors on digits", populations, levels, depths, predicted, (rate, density), tuple(gaps), tuple(map(str, range(10)))
    )
