"""A borrowed model is given back as it was, also when something fails."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mithridate.data import Samples
from mithridate.nn.modes import check_logits, clone, device_of, evaluating, fast_layout, frozen, has_fast_bf16, predict


def mixed() -> nn.Sequential:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    model[2].eval()
    model[1].bias.requires_grad_(False)
    return model


def marks(model: nn.Module) -> tuple[list[bool], list[bool]]:
    return [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("borrow", [evaluating, frozen])
def test_modes_and_flags_come_back(borrow: object, fails: bool) -> None:
    model = mixed()
    before = marks(model)
    try:
        with borrow(model) as same:  # type: ignore[operator]
            assert same is model
            assert not any(m.training for m in model.modules())
            assert any(p.requires_grad for p in model.parameters()) == (borrow is evaluating)
            if fails:
                raise ArithmeticError
    except ArithmeticError:
        assert fails
    assert marks(model) == before


def test_frozen_lets_gradients_reach_the_images_but_not_the_weights() -> None:
    model, images = mixed(), torch.rand(5, 1, 2, 2, requires_grad=True)
    with frozen(model):
        model(images).sum().backward()
    assert float(images.grad.abs().sum()) > 0  # type: ignore[union-attr]
    assert all(p.grad is None for p in model.parameters())


def test_a_clone_shares_nothing_and_can_be_trained() -> None:
    model = mixed()
    twin = clone(model)
    assert all(p.requires_grad for p in twin.parameters()) and not model[1].bias.requires_grad
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert all(not torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_device_of_anything() -> None:
    assert device_of(mixed()) == device_of(nn.Flatten()) == torch.device("cpu")
    assert device_of(nn.Linear(1, 1, device="meta")) == torch.device("meta")
    assert device_of(nn.BatchNorm1d(2, affine=False, device="meta")) == torch.device("meta"), "buffers count where there are no weights"


@pytest.mark.parametrize(
    ("logits", "said"),
    [
        ((torch.zeros(2, 3),), "got tuple"), ({"out": 1}, "got dict"), (torch.zeros(3, 3), r"got \(3, 3\)"),
        (torch.zeros(2), r"got \(2,\)"), (torch.zeros(2, 3, 1), r"got \(2, 3, 1\)"), (torch.full((2, 3), float("nan")), "got NaN"),
        (torch.full((2, 3), float("inf")), "got NaN or infinity"),
    ],
)  # fmt: skip
def test_wrong_logits_are_described(logits: object, said: str) -> None:
    with pytest.raises(ValueError, match=f"model must return .*{said}"):
        check_logits(logits, 2)


def test_predict_equals_one_big_forward_pass() -> None:
    model = mixed()
    images = torch.randint(0, 256, (23, 1, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    samples = Samples(images, torch.zeros(23, dtype=torch.int64))
    before = marks(model)
    found = predict(model, samples, batch_size=5)
    assert marks(model) == before and not found.requires_grad
    with evaluating(model):
        torch.testing.assert_close(found, model(images / 255))
    torch.testing.assert_close(predict(model, images / 255), found)
    assert predict(mixed().double(), (images / 255).double()).dtype == torch.float32
    with pytest.raises(ValueError, match="images must not be empty"):
        predict(model, images[:0])


@pytest.mark.parametrize(
    ("flags", "fast"),
    [
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, True),
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": True, "amx_bf16": False, "cpu_name": "Intel Xeon"}, False),
        ({"avx512_bf16": True, "amx_bf16": True, "cpu_name": "Intel Xeon"}, True),
        ({"cpu_name": "AMD EPYC"}, False),
    ],
)
def test_bf16_is_fast_where_it_was_measured_to_be(monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any], fast: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)
    assert has_fast_bf16(torch.device("cpu")) is fast


def test_older_pytorch_cannot_say_whether_bf16_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert has_fast_bf16(torch.device("cpu")) is False
    assert has_fast_bf16(torch.device("meta")) is False


class Viewing(nn.Module):
    """Flattens with `view`, as many models do; `mixed` also demands float32 features."""

    def __init__(self, mixed: bool = False) -> None:
        super().__init__()
        self.body, self.head, self.mixed = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 25, 2), mixed

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        if self.mixed:
            features = torch.nn.functional.linear(features.view(len(x), -1), self.head.weight.double())
        return self.head(features.view(len(x), -1))


def test_the_layout_is_the_fastest_that_the_model_takes() -> None:
    images = torch.rand(3, 3, 5, 5)
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Dropout(), nn.Linear(36, 2)).train()
    state = torch.get_rng_state()
    assert fast_layout(flat, images, bf16=True) is torch.channels_last
    assert flat.training and torch.equal(torch.get_rng_state(), state)
    assert fast_layout(Viewing(), images, bf16=False) is torch.contiguous_format
    assert fast_layout(Viewing(mixed=True), images, bf16=False) is None
