"""Global random generators, borrowed: models that draw at random and foreign attacks know no other."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Every global generator seeded, and put back afterwards: Python's, NumPy's, and PyTorch's on the CPU and every GPU in use."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  the packages draw from this one
    gpus = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=gpus):
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)
        if gpus:
            torch.cuda.manual_seed_all(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
