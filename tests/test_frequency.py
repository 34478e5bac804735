"""The cosine transform against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from mithridate.threats.stamping.frequency import cosines, inverse_dct


@pytest.mark.parametrize("shape", [(8, 8), (5, 12), (1, 4), (32, 31)])
def test_inverse_dct_equals_scipy(shape: tuple[int, int]) -> None:
    spectrum = np.random.default_rng(0).normal(size=(3, *shape))
    pixels = inverse_dct(torch.from_numpy(spectrum)).numpy()
    np.testing.assert_allclose(pixels, idctn(spectrum, axes=(1, 2), norm="ortho"), atol=1e-12)
    np.testing.assert_allclose(dctn(pixels, axes=(1, 2), norm="ortho"), spectrum, atol=1e-12)


def test_cosines_are_orthonormal() -> None:
    for size in (1, 2, 7, 32):
        torch.testing.assert_close(cosines(size) @ cosines(size).T, torch.eye(size, dtype=torch.float64))
