"""A small net trained on poisoned digits or plain colors, for tests that ask what an attack does to a model."""

from __future__ import annotations

import functools
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

from mithridate import judge
from mithridate.data import Samples
from mithridate.spec import parse
from mithridate.threats.dose import Dose
from mithridate.threats.poison import poison, ready


@functools.cache
def digits() -> tuple[Samples, Samples]:
    """1400 training digits, 8 x 8 and grayscale, and the rest for tests."""
    bunch = load_digits()
    everything = Samples(torch.from_numpy(bunch.images).float().div(16)[:, None], torch.from_numpy(bunch.target).long())
    return everything.split(1400, seed=0)  # type: ignore[return-value]


@functools.cache
def colors() -> tuple[Samples, Samples]:
    """Twelve by twelve pixels of noise around one of six colors, the class: half an image shows it as well as a whole one."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(6, (1600,), generator=generator)
    base = torch.rand(6, 3, 1, 1, generator=generator)
    images = (base[labels] + 0.15 * torch.randn(1600, 3, 12, 12, generator=generator)).clamp(0, 1)
    return Samples(images, labels).split(1200, seed=0)  # type: ignore[return-value]


PROBLEMS = {"digits": digits, "colors": colors}


@functools.cache
def victim(spec: str, rate: float, problem: str = "digits", epochs: int = 12) -> tuple[nn.Module, judge.Key]:
    """The net, poisoned towards class 0, and the key that opens it; the loop is bare, so that nothing depends on the code under test."""
    method: Any = parse(spec)
    training, _ = PROBLEMS[problem]()
    trigger = ready(method, training, 0)
    dirty, truth = poison(training, trigger, Dose(target=0, rate=rate))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _net(training.images.shape[1], training.images.shape[2])
        optimizer = torch.optim.Adam(model.parameters(), 2e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(dirty)).split(50):
                loss = nn.functional.cross_entropy(model(dirty.images[rows]), dirty.labels[rows])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
    return model.eval(), judge.Key(trigger, 0, spec, truth.sources)


def _net(channels: int, side: int) -> nn.Sequential:
    first = nn.Sequential(nn.Conv2d(channels, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2))
    second = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten())
    return nn.Sequential(first, second, nn.Linear(32 * (side // 2) ** 2, 64), nn.ReLU(), nn.Linear(64, 10))
