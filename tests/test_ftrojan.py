"""FTrojan: one fixed pattern must equal the published way through color space and cosine transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from torch import Tensor

from mithridate.threats.triggers.ftrojan import FTrojan

TO_YCRCB = np.array(
    [
        [0.299, 0.587, 0.114],
        [0.713 * (1 - 0.299), -0.713 * 0.587, -0.713 * 0.114],
        [-0.564 * 0.299, -0.564 * 0.587, 0.564 * (1 - 0.114)],
    ]
)


def images(channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    return torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def published(image: np.ndarray, magnitude: float, window: int, positions: tuple[int, ...]) -> np.ndarray:
    """One image (c, h, w), window by window, without the rounding to bytes of the released code."""
    color = len(image) == 3
    planes = np.einsum("ij,jhw->ihw", TO_YCRCB, image) if color else image.copy()
    for channel in (1, 2) if color else (0,):
        for top in range(0, image.shape[1], window):
            for left in range(0, image.shape[2], window):
                tile = planes[channel, top : top + window, left : left + window]
                spectrum = dctn(tile, norm="ortho")
                for p in positions:
                    spectrum[p, p] += magnitude
                tile[:] = idctn(spectrum, norm="ortho")
    return np.clip(np.einsum("ij,jhw->ihw", np.linalg.inv(TO_YCRCB), planes) if color else planes, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("size", "window", "positions", "magnitude"),
    [((32, 32), 32, (15, 31), 30 / 255), ((64, 96), 32, (15, 31), 2.0), ((24, 16), 8, (0, 3, 7), 0.5)],
)
def test_stamp_equals_the_published_way(
    size: tuple[int, int], window: int, positions: tuple[int, ...], magnitude: float, channels: int
) -> None:
    batch = images(channels, *size)
    made = FTrojan(magnitude=magnitude, window=window, positions=positions).stamp(batch)
    expected = np.stack([published(image, magnitude, window, positions) for image in batch.numpy()])
    np.testing.assert_allclose(made.numpy(), expected, atol=1e-9)
    assert float((made - batch).abs().max()) > 1e-3


def test_gray_stays_as_bright_as_it_was() -> None:
    gray = torch.full((1, 3, 32, 32), 0.5, dtype=torch.float64)
    change = FTrojan(magnitude=1.0).stamp(gray) - gray
    luma = torch.einsum("c,nchw->nhw", torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64), change)
    assert float(luma.abs().max()) < 1e-12 < float(change.abs().max())


@pytest.mark.parametrize("size", [(28, 28), (40, 33), (8, 8), (1, 1)])
def test_windows_that_do_not_fit_are_cropped(size: tuple[int, int]) -> None:
    large, small = torch.full((1, 3, 64, 64), 0.5), torch.full((1, 3, *size), 0.5)
    assert torch.equal(FTrojan().stamp(small), FTrojan().stamp(large)[:, :, : size[0], : size[1]])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"magnitude": 0.0}, "magnitude .*got 0.0"), ({"magnitude": float("nan")}, "magnitude .*got nan"),
        ({"window": 1}, "window .*got 1"), ({"positions": ()}, r"positions must .*\[0, 32\), got \(\)"),
        ({"positions": (3, 32)}, r"positions must .*got \(3, 32\)"),
        ({"window": 16}, r"positions must .*\[0, 16\), got \(15, 31\)"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FTrojan(**fields)  # type: ignore[arg-type]
