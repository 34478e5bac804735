"""TrojanNN: the neurons it chooses, and how far its patch drives them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from attackers import digits, features
from mithridate.data import to_uint8
from mithridate.nn.models import initialize
from mithridate.nn.resolve import resolve
from mithridate.threats.stamping.fitted import PatchTrigger
from mithridate.threats.triggers.trojan_nn import TrojanNN


def test_the_chosen_neurons_rise_far_above_what_they_ever_show(surrogate: str) -> None:
    clean, method = digits(), TrojanNN(surrogate=surrogate, samples=200, steps=100, size=5)
    trigger = method.craft(clean, 0)
    _, chosen = method.choose(resolve(surrogate).model, clean.images[:200])
    plain, stamped = (features(surrogate, images)[:, chosen] for images in (clean.images, trigger.stamp(clean.images)))
    random = PatchTrigger(torch.rand(1, 5, 5, generator=torch.Generator().manual_seed(3)), torch.tensor([1, 8, 8]), "bottom-right", 0)
    by_chance = features(surrogate, random.stamp(clean.images))[:, chosen]
    assert bool((stamped.mean(0) > 1.3 * plain.mean(0)).all())
    assert bool((stamped.mean(0) > 1.3 * by_chance.mean(0)).all())
    assert float(stamped.mean()) > 2 * float(plain.mean())


def test_the_strongest_neurons_are_chosen_by_hand() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    with torch.no_grad():
        model[1].weight.copy_(torch.ones(5, 4))  # type: ignore[union-attr]
        model[1].bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.0, -9.0]))  # type: ignore[union-attr]  the last one never fires
        model[3].weight.copy_(torch.tensor([[1.0, -9.0, 0.0, 3.0, 50.0]]).expand(3, 5))  # type: ignore[union-attr]
    images = torch.rand(9, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    layer, chosen = TrojanNN(neurons=3).choose(model, images)
    assert layer == "3@input"
    assert chosen.tolist() == [1, 3, 0]
    with pytest.raises(ValueError, match="neurons must be at most 4, as many as 3 has that respond, got 5"):
        TrojanNN(neurons=5).choose(model, images)


def test_convolutions_have_neurons_too() -> None:
    model = initialize("wrn_16_1", 0, classes=3, channels=1, size=8).eval()
    name = next(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and module.in_channels == 32)
    _, chosen = TrojanNN(layer=name).choose(model, torch.rand(9, 1, 8, 8))
    weight = dict(model.named_modules())[name].weight
    assert chosen.tolist() == weight.abs().sum((0, 2, 3)).topk(2).indices.tolist()  # type: ignore[operator]


def test_grouped_convolutions_count_each_input_in_its_own_group() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 6, 1, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 2], [1, 2], [1, 2], [9, 0], [0, 0], [0, 1]]).view(6, 2, 1, 1))  # type: ignore[union-attr]
    _, chosen = TrojanNN(layer="1", neurons=4).choose(model, torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0)))
    assert chosen.tolist() == [2, 1, 0, 3]


def test_restored_triggers_stamp_the_same(surrogate: str) -> None:
    clean, method = digits(), TrojanNN(surrogate=surrogate, samples=50, steps=5, size=3, corner="top-left", margin=1)
    crafted = method.craft(clean, 0)
    restored = method.restore(crafted.state_dict())
    for images in (clean.images[:9], to_uint8(clean.images[:9])):
        assert torch.equal(crafted.stamp(images), restored.stamp(images))
    changed = (crafted.stamp(clean.images) != clean.images).any(0)[0]
    assert int(changed.sum()) == int(changed[1:4, 1:4].sum()) > 0


def test_bad_input_is_refused_by_name(surrogate: str) -> None:
    clean = digits()
    with pytest.raises(ValueError, match="samples must be at most 600, as there are of 10 classes, got 601"):
        TrojanNN(surrogate=surrogate, samples=601).craft(clean, 0)
    with pytest.raises(ValueError, match="layer 'head' is not in the model"):
        TrojanNN(surrogate=surrogate, layer="head").craft(clean, 0)
    with pytest.raises(ValueError, match=r"layer must be one of .*1\.0.*, got '1'"):
        TrojanNN(surrogate=surrogate, layer="1").craft(clean, 0)
    with pytest.raises(ValueError, match=r"target must lie in \[0, 10\), got 10"):
        TrojanNN(surrogate=surrogate).craft(clean, 10)
    with pytest.raises(ValueError, match=r"size \+ margin must be at most 8, got 9 \+ 0"):
        TrojanNN(surrogate=surrogate, size=9).craft(clean, 0)
