"""Taps: the same numbers as a forward pass by hand, the right layers, and no hook left behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mithridate.data import Samples
from mithridate.nn.models import MODELS, initialize
from mithridate.nn.modes import evaluating
from mithridate.nn.taps import last_hidden, pooled, remembered, stages, tapped, trace, trace_all


def images(count: int = 5, channels: int = 3, size: int = 16) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


class Functional(nn.Module):
    """A third party's net: everything but convolutions and the head is a function call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 12, 3), nn.Linear(12, 4)

    def features(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        return F.adaptive_avg_pool2d(F.relu(self.conv2(x)), 1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))


class FunctionalHead(Functional):
    """The head is a bare matrix product: no module to hang a hook on."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.features(x), self.fc.weight, self.fc.bias)


class Tokens(nn.Module):
    """A vision transformer in small: patches, attention, a class token and a head."""

    def __init__(self, mean: bool = False) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.zeros(1, 1, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.norm, self.head, self.mean = nn.LayerNorm(8), nn.Linear(8, 4), mean

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.norm(self.block(torch.cat([self.token.expand(len(x), -1, -1), x], 1)))
        return self.head(x).mean(1) if self.mean else self.head(x[:, 0])


@pytest.mark.parametrize("name", MODELS)
def test_last_hidden_of_the_zoo_makes_the_logits(name: str) -> None:
    model = initialize(name, 0, classes=7, channels=3, size=16)
    layer = last_hidden(model, images(1))
    seen = trace(model, images(), (layer,))
    head = model.get_submodule(layer.removesuffix("@input"))
    assert isinstance(head, nn.Linear) and head.out_features == 7
    torch.testing.assert_close(head(seen.activations[layer]), seen.logits)
    with evaluating(model):
        torch.testing.assert_close(seen.logits, model(images()))
    assert torch.equal(seen.predicted, seen.logits.argmax(1))
    assert hooks(model) == 0 and model.training


@pytest.mark.parametrize("name", MODELS)
def test_stages_of_the_zoo_go_from_large_to_small(name: str) -> None:
    model = initialize(name, 0, classes=7, channels=3, size=16)
    found = stages(model, images(1))
    assert found[-1] == last_hidden(model, images(1)) and len(set(found)) == len(found) >= 3
    sizes = {}
    handles = [
        model.get_submodule(layer).register_forward_hook(lambda _, __, out, layer=layer: sizes.__setitem__(layer, out.shape[2]))
        for layer in found[:-1]
    ]
    seen = trace(model, images(), found)
    for handle in handles:
        handle.remove()
    heights = [sizes[layer] for layer in found[:-1]]
    assert heights == sorted(set(heights), reverse=True) and heights[0] == 16
    assert all(seen.activations[layer].ndim == 2 and len(seen.activations[layer]) == 5 for layer in found)
    assert hooks(model) == 0


def test_functional_nets() -> None:
    model = Functional()
    assert last_hidden(model, images(1)) == "fc@input"
    torch.testing.assert_close(trace(model, images(), ("fc@input",)).activations["fc@input"], model.features(images()))
    assert stages(model, images(1)) == ("conv1", "conv2", "fc@input")
    seen = trace(model, images(), ("conv1", "conv2@input"))
    first = model.conv1(images())
    torch.testing.assert_close(seen.activations["conv1"], first.mean((2, 3)))
    torch.testing.assert_close(seen.activations["conv2@input"], F.max_pool2d(F.relu(first), 2).mean((2, 3)))


def test_a_functional_head_leaves_the_last_layer_that_can_be_tapped() -> None:
    model = FunctionalHead()
    assert last_hidden(model, images(1)) == "conv2@input"
    assert trace(model, images(), ("conv2@input",)).activations["conv2@input"].shape == (5, 6)
    with pytest.raises(ValueError, match="layer 'fc@input' did not run in a forward pass of the model"):
        trace(model, images(), ("fc@input",))
    assert hooks(model) == 0


@pytest.mark.parametrize("mean", [False, True])
def test_tokens(mean: bool) -> None:
    model = Tokens(mean)
    layer = last_hidden(model, images(1))
    assert layer == "head@input"
    seen = trace(model, images(), (layer, "norm", "block"))
    torch.testing.assert_close(model.head(seen.activations[layer]), seen.logits, rtol=1e-4, atol=1e-5)
    assert {name: tuple(a.shape) for name, a in seen.activations.items()} == {layer: (5, 8), "norm": (5, 8), "block": (5, 8)}
    assert stages(model, images(1)) == ("patches", "head@input")


def test_pooling() -> None:
    maps = torch.arange(24.0).view(1, 2, 3, 4)
    assert pooled(maps).tolist() == [[5.5, 17.5]]
    assert pooled(maps[0]).tolist() == [[4.0, 5.0, 6.0, 7.0], [16.0, 17.0, 18.0, 19.0]]
    assert torch.equal(pooled(maps[0, 0]), maps[0, 0])


def test_a_tap_can_keep_a_grid_of_means_or_everything() -> None:
    model, x = Functional(), images()
    first = model.conv1(x)
    seen = trace(model, x, ("conv1@2x7", "conv1@raw", "conv2@input@9x9", "@input", "@input@4x4", "fc@input@3x3"))
    half = torch.stack([first[:, :, :7].unflatten(3, (7, 2)).mean((2, 4)), first[:, :, 7:].unflatten(3, (7, 2)).mean((2, 4))], 2)
    torch.testing.assert_close(seen.activations["conv1@2x7"], half.flatten(1))
    assert torch.equal(seen.activations["conv1@raw"], first)
    assert seen.activations["conv2@input@9x9"].shape == (5, 6 * 7 * 7)
    torch.testing.assert_close(seen.activations["@input"], x.mean((2, 3)))
    torch.testing.assert_close(seen.activations["@input@4x4"], x.unflatten(3, (4, 4)).unflatten(2, (4, 4)).mean((3, 5)).flatten(1))
    torch.testing.assert_close(seen.activations["fc@input@3x3"], model.features(x))


def test_tuples_are_read_by_their_first_part() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, str]:
            return x.flatten(1), "attention"

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two, self.fc = Two(), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.two(x)[0])

    small = images(2, 3, 2)
    assert torch.equal(trace(Net(), small, ("two",)).activations["two"], small.flatten(1))


class Broken(Functional):
    def forward(self, x: Tensor) -> Tensor:
        super().forward(x)
        raise ArithmeticError("broken")


@pytest.mark.parametrize("ask", [lambda m, x: trace(m, x, ("fc",)), last_hidden, stages], ids=["trace", "last_hidden", "stages"])
def test_hooks_are_removed_and_modes_put_back_on_error(ask: object) -> None:
    model = Broken()
    model.conv1.eval()
    modes = [m.training for m in model.modules()]
    with pytest.raises(ArithmeticError, match="broken"):
        ask(model, images(1))  # type: ignore[operator]
    assert hooks(model) == 0 and [m.training for m in model.modules()] == modes


def test_hooks_of_the_user_stay() -> None:
    model, called = Functional(), []
    model.fc.register_forward_hook(lambda *_: called.append(1))
    trace(model, images(), ("fc", "fc@input"))
    assert hooks(model) == 1 and called == [1]


@pytest.mark.parametrize("layer", ["fcc", "fc@output", "fc@", "nothing.like.it"])
def test_unknown_layers_are_named_with_close_ones(layer: str) -> None:
    model = Functional()
    with pytest.raises(ValueError, match=rf"layer '{layer}' is not in the model; close names: "), tapped(model, ("conv1", layer)):
        pass
    assert hooks(model) == 0
    with pytest.raises(ValueError, match="close names: fc"), tapped(model, ("fcc",)):
        pass


def test_a_model_without_layers_has_no_last_hidden() -> None:
    with pytest.raises(ValueError, match="model must contain a linear or convolutional layer that runs"):
        last_hidden(nn.Flatten(), images(1))


def test_gradients_reach_the_images() -> None:
    model, x = Functional(), images().requires_grad_()
    trace(model, x, ("fc@input",)).activations["fc@input"].sum().backward()
    assert float(x.grad.abs().sum()) > 0  # type: ignore[union-attr]


def test_trace_all_equals_one_trace_in_any_batch_size() -> None:
    model = initialize("wrn_16_1", 0, classes=3, channels=3, size=16)
    found = stages(model, images(1))
    whole = trace(model, images(11), found)
    raw = (images(11) * 255).round().to(torch.uint8)
    for batch_size in (1, 4, 64):
        parts = trace_all(model, images(11), found, batch_size)
        torch.testing.assert_close(parts.logits, whole.logits.detach())
        for layer in found:
            torch.testing.assert_close(parts.activations[layer], whole.activations[layer].detach())
        assert not parts.logits.requires_grad
    exact = trace_all(model, Samples(raw, torch.zeros(11, dtype=torch.int64)), found)
    torch.testing.assert_close(exact.logits, trace(model, raw / 255, ()).logits.detach())
    with pytest.raises(ValueError, match="images must not be empty"):
        trace_all(model, raw[:0])


class Counting(Functional):
    """Counts the images that run."""

    shown = 0

    def forward(self, x: Tensor) -> Tensor:
        self.shown += len(x)
        logits: Tensor = super().forward(x)
        return logits


def test_remembered_images_run_once_a_layer_and_give_the_same() -> None:
    model, samples = Counting(), Samples(images(20), torch.arange(20) % 4)
    memory = remembered(model, samples)
    chosen = torch.tensor([3, 17, 5])
    plain = trace_all(model, samples[chosen], ("conv1", "fc@input"))
    model.shown = 0
    for part in (memory[chosen], memory[torch.arange(20) > 9][::2], memory[:7]):
        seen = trace_all(model, part, ("conv1",))
        assert torch.equal(seen.images, part.images)
        assert len(seen.logits) == len(seen.activations["conv1"]) == len(part)
    assert model.shown == 20
    seen = trace_all(model, memory[chosen], ("conv1", "fc@input"))
    assert model.shown == 40, "a new layer takes another pass"
    torch.testing.assert_close(seen.logits, plain.logits)
    for layer in ("conv1", "fc@input"):
        torch.testing.assert_close(seen.activations[layer], plain.activations[layer])
    assert trace_all(model, memory[:7], ("fc@input",)).activations.keys() == {"fc@input"}
    assert model.shown == 40


def test_another_model_is_not_remembered() -> None:
    first, second = Counting(), Counting()
    memory = remembered(first, Samples(images(6), torch.zeros(6, dtype=torch.int64)))
    assert remembered(first, memory) is memory
    assert remembered(second, memory) is not memory
    torch.testing.assert_close(trace_all(second, memory).logits, second(images(6)).detach())
    assert not first.shown


def test_a_trace_comes_in_batches() -> None:
    whole = trace_all(Functional(), (255 * images(7)).byte(), ("conv1",))
    parts = list(whole.batches(3, torch.device("cpu")))
    assert [len(part.logits) for part in parts] == [3, 3, 1]
    torch.testing.assert_close(torch.cat([part.images for part in parts]), whole.images.float() / 255)
    torch.testing.assert_close(torch.cat([part.activations["conv1"] for part in parts]), whole.activations["conv1"])
