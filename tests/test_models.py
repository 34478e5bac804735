"""Every architecture of the zoo takes every data set's images and classes, and has the size its paper says."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from mithridate.errors import BadSpec
from mithridate.nn.models import MODELS, Normalize, WideBlock, create, initialize
from mithridate.nn.modes import clone

every = pytest.mark.parametrize("name", MODELS)


@every
@pytest.mark.parametrize(
    ("channels", "size", "classes"), [(1, 8, 2), (1, 16, 10), (1, 28, 10), (3, 16, 5), (3, 28, 7), (3, 32, 43), (3, 33, 10)]
)
def test_shapes(name: str, channels: int, size: int, classes: int) -> None:
    model = initialize(name, 0, classes=classes, channels=channels, size=size).eval()
    images = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0), requires_grad=True)
    logits = model(images)
    assert logits.shape == (2, classes) and bool(torch.isfinite(logits).all())
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), images)
    assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize(("name", "count"), [("wrn_16_1", 175_066), ("wrn_16_2", 691_674), ("preact_resnet18", 11_171_146 + 2 * 512)])
def test_parameter_counts_are_the_published_ones(name: str, count: int) -> None:
    """PreActResNet-18: the usual CIFAR code plus the BatchNorm before the pooling, which the paper has and that code forgot."""
    assert sum(p.numel() for p in create(name, classes=10).parameters()) == count


def test_sizes_of_the_other_nets_by_hand() -> None:
    def parameters(name: str, **shape: int) -> int:
        return sum(p.numel() for p in create(name, **shape).parameters())

    lenet = (25 * 32 + 32) + (32 * 25 * 64 + 64) + (64 * 7 * 7 * 128 + 128) + (128 * 10 + 10)
    assert parameters("lenet", classes=10, channels=1, size=28) == lenet
    convolutions = sum(9 * a * b + b for a, b in ((3, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)))
    assert parameters("gtsrb_cnn", classes=43) == convolutions + (128 * 16 * 512 + 512) + (512 * 43 + 43)
    widths = (3, 64, 128, 256, 256, 512, 512, 512, 512)
    vgg = sum(9 * a * b + 2 * b for a, b in itertools.pairwise(widths))
    assert parameters("vgg11_bn", classes=10) == vgg + 512 * 10 + 10


@every
def test_normalization_is_the_first_layer(name: str) -> None:
    model = create(name, classes=4, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    first = model[0]  # type: ignore[index]
    assert isinstance(first, Normalize)
    images = torch.rand(2, 3, 4, 4)
    expected = torch.stack([(images[:, i] - mean) / std for i, (mean, std) in enumerate([(0.1, 0.5), (0.2, 0.25), (0.3, 0.125)])], 1)
    torch.testing.assert_close(first(images), expected)
    assert {"0.mean", "0.std"} <= model.state_dict().keys(), "it travels with the weights"


@every
def test_trains_and_copies(name: str) -> None:
    model = create(name, classes=3, channels=1, size=16)
    model(torch.rand(2, 1, 16, 16)).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert clone(model).state_dict().keys() == model.state_dict().keys()


def test_initialize_draws_from_its_seed_only() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = (initialize("lenet", seed, classes=3, channels=1, size=8).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_wrong_names_and_numbers_are_named() -> None:
    with pytest.raises(BadSpec, match=r"architecture 'wrn_16' is unknown; known: .*wrn_16_1"):
        create("wrn_16", classes=10)
    with pytest.raises(BadSpec, match=r"architecture 'zzz' is unknown; known: .*lenet.*vgg11_bn"):
        create("zzz", classes=10)
    for field, value in (("classes", 1), ("channels", 2), ("size", 7)):
        with pytest.raises(ValueError, match=rf"{field} must be .*got {value}"):
            create("lenet", **({"classes": 10} | {field: value}))


def test_a_shortcut_is_projected_only_where_the_shape_changes() -> None:
    """And then from the activated input, as in the paper's figure 1; else the raw input is added."""
    block = WideBlock(4, 8, 2).eval()
    x = torch.randn(2, 4, 6, 6)
    active = block.norm1(x).relu()
    torch.testing.assert_close(block(x), block.conv2(block.norm2(block.conv1(active)).relu()) + block.shortcut(active))
    block = WideBlock(4, 4, 1).eval()
    torch.testing.assert_close(block(x), block.conv2(block.norm2(block.conv1(block.norm1(x).relu())).relu()) + x)
    model = create("wrn_16_1", classes=10)
    projections = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    assert len(projections) == 2
    assert sum(isinstance(m, nn.Conv2d) for m in create("wrn_16_2", classes=10).modules()) == 1 + 12 + 3
