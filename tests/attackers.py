"""An attacker's own model of the digits, trained once and saved, for the tests of triggers that are crafted against one."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from mithridate.data import Samples
from mithridate.nn.resolve import resolve, save_model
from mithridate.nn.taps import last_hidden, trace_all
from mithridate.threats.stamping.surrogate import Attacker


def digits(count: int = 600) -> Samples:
    """The first digits, 8x8 floats."""
    found = load_digits()
    return Samples(torch.from_numpy(found.images[:count]).float().div(16)[:, None], torch.from_numpy(found.target[:count]).long())


def own_model(folder: Path) -> str:
    """Train it into a folder; the path of its file."""
    path = folder / "wrn.safetensors"
    model = Attacker(surrogate="wrn_16_1", surrogate_epochs=4).model(digits(1797))
    save_model(path, model, {"arch": "wrn_16_1", "classes": 10, "input": [1, 8, 8]})
    return str(path)


def features(surrogate: str, images: Tensor) -> Tensor:
    """What its last hidden layer makes of images."""
    model = resolve(surrogate).model
    layer = last_hidden(model, images[:1])
    return trace_all(model, images, [layer]).activations[layer]
