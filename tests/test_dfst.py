"""Color transfer reaches what it aims at, and the style trigger mixes it in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm
from torch import Tensor

from mithridate.threats.stamping import colors
from mithridate.threats.triggers.dfst import DFST


def images(count: int = 4, channels: int = 3, height: int = 24, width: int = 20) -> Tensor:
    """Images whose channels go together, as in photographs."""
    drawn = torch.rand(count, channels + 1, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return 0.5 * drawn[:, :1] + 0.5 * drawn[:, 1:]


STYLE = torch.tensor([[0.05, 0.02, 0.01], [0.02, 0.03, 0.01], [0.01, 0.01, 0.02]], dtype=torch.float64)


@pytest.mark.parametrize("channels", [1, 3])
def test_transfer_reaches_the_wanted_mean_and_covariance(channels: int) -> None:
    wanted_mean = torch.tensor([0.6, 0.4, 0.3], dtype=torch.float64)[:channels, None]
    made = colors.transfer(images(channels=channels), wanted_mean, STYLE[:channels, :channels])
    mean, covariance = colors.moments(made.flatten(2))
    torch.testing.assert_close(mean, wanted_mean.expand_as(mean))
    for i in range(4):
        np.testing.assert_allclose(covariance[i].numpy(), STYLE[:channels, :channels].numpy(), atol=0.003)


def test_transfer_is_the_map_of_the_paper() -> None:
    """Pitie and Kokaram: A = S^(-1/2) (S^(1/2) T S^(1/2))^(1/2) S^(-1/2) for own covariance S and wanted T."""
    image = images(1)
    pixels = image[0].flatten(1).numpy()
    own = np.cov(pixels, bias=True) + colors.SOFTENING * np.eye(3)
    root = sqrtm(own).real
    inverse = np.linalg.inv(root)
    matrix = inverse @ sqrtm(root @ STYLE.numpy() @ root).real @ inverse
    expected = matrix @ (pixels - pixels.mean(1, keepdims=True)) + 0.4
    made = colors.transfer(image, torch.full((3, 1), 0.4, dtype=torch.float64), STYLE)
    np.testing.assert_allclose(made[0].flatten(1).numpy(), expected, atol=1e-9)


def test_flat_images_take_the_mean_and_stay_flat() -> None:
    flat = torch.full((1, 3, 8, 8), 0.2)
    flat[0, 0, 0, 0] += 1 / 255
    made = colors.transfer(flat, torch.tensor([[0.6], [0.4], [0.3]]), STYLE)
    assert float((made - torch.tensor([0.6, 0.4, 0.3])[:, None, None]).abs().max()) < 8 / 255, "noise of one level is not blown up"


def test_alpha_mixes_the_styled_with_the_original() -> None:
    batch = images()
    styled = DFST(alpha=1.0).stamp(batch)
    torch.testing.assert_close(DFST(alpha=0.25).stamp(batch), 0.75 * batch + 0.25 * styled)
    assert 0 <= float(styled.min()) <= float(styled.max()) <= 1
    red, green, blue = styled.mean((0, 2, 3)).tolist()
    assert red > green > blue, "a sunset is orange"
    assert not torch.equal(DFST(pattern_seed=1).stamp(batch), DFST().stamp(batch))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_batches_do_not_matter_for_color_images_either(dtype: torch.dtype) -> None:
    batch = images(37, height=32, width=32).to(dtype)
    together = DFST().stamp(batch)
    assert together.dtype == dtype
    assert torch.equal(together, torch.cat([DFST().stamp(batch[i : i + 1]) for i in range(37)]))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_style_image_gives_its_colors(tmp_path: Path, channels: int) -> None:
    ramp = np.linspace(30, 200, 64)
    picture = np.stack([ramp[None] + 0 * ramp[:, None], ramp[::-1, None] + 0 * ramp[None], np.full((64, 64), 90.0)], -1)
    Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "style.png")
    converted = Image.open(tmp_path / "style.png").convert("L" if channels == 1 else "RGB")
    style = np.array(converted, dtype=np.float64).reshape(-1, channels) / 255
    made = DFST(alpha=1.0, pattern=str(tmp_path / "style.png")).stamp(images(channels=channels)).flatten(2)
    np.testing.assert_allclose(made.mean(-1).numpy(), np.tile(style.mean(0), (4, 1)), atol=0.02)  # clipping moves it a little
    np.testing.assert_allclose(made.var(-1).numpy(), np.tile(style.var(0), (4, 1)), atol=0.006)


def test_wrong_fields_are_named() -> None:
    for alpha in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match=rf"alpha must lie in \(0, 1\], got {alpha}"):
            DFST(alpha=alpha)
    with pytest.raises(ValueError, match="pattern must be a readable picture, got '/nowhere.png'"):
        DFST(pattern="/nowhere.png").stamp(images())
