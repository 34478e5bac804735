"""scikit-learn's digits: 1,797 grey 8x8 images (UCI, Alpaydin and Kaynak 1998), there without any download, at 16x16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from mithridate.data import Samples
from mithridate.datasets.published import Pair, Published
from mithridate.datasets.wanted import take

_TEST = 500


def read(root: Path) -> Pair:
    """1,297 training and 500 test images (n, 1, 16, 16), uint8, split by class and always alike; `root` does not matter."""
    from sklearn.datasets import load_digits

    raw: Any = load_digits()
    small = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 16
    images = functional.interpolate(small, scale_factor=2, mode="bilinear").mul_(255).round_().to(torch.uint8)
    everything = Samples(images, torch.tensor(raw.target, dtype=torch.int64), DIGITS.classes)
    test = torch.zeros(len(everything), dtype=torch.bool)
    test[take(everything.labels, _TEST, seed=0)] = True
    return everything[~test], everything[test]


DIGITS = Published("digits", tuple("0123456789"), False, read, (), "")
