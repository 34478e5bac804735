"""One perturbation for all: where the best one is known, and on images it has not seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from linear import Linear
from mithridate.roles import Goal
from mithridate.threats.evasion.uap import UAP


def one_class(shape: tuple[int, int, int], count: int) -> tuple[Linear, Tensor, Tensor]:
    """Images of class 0 of two, all with the same worst direction."""
    model = Linear(shape, 2)
    images = 0.5 + 0.01 * torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.bias[0] = 0.5
    return model, images, torch.zeros(count, dtype=torch.int64)


@pytest.mark.parametrize(("norm", "order"), [("linf", 1), ("l2", 2)])
@pytest.mark.parametrize(("shape", "count"), [((1, 8, 8), 1), ((3, 12, 10), 64), ((3, 32, 32), 64)])
def test_finds_the_one_worst_direction(norm: Any, order: int, shape: tuple[int, int, int], count: int) -> None:
    model, images, labels = one_class(shape, count)
    away = (model.weight[1] - model.weight[0]).detach()
    gaps = (model(images) @ torch.tensor([1.0, -1.0])).detach()
    radius = float(gaps.max() / away.norm(p=order))
    for scale, all_fooled in ((0.99, False), (1.05, True)):
        attack = UAP(norm=norm, eps=radius * scale, epochs=40)
        change = attack.universal(model, images, labels)
        assert change.shape == shape
        assert float(change.abs().max() if norm == "linf" else change.norm()) <= radius * scale + 1e-6
        assert bool((model(images + change).argmax(1) != labels).all()) is all_fooled
    assert torch.equal(attack.perturb(model, images, labels), (images + change).clamp(0, 1))


def test_works_on_images_it_has_not_seen() -> None:
    model, images, labels = one_class((3, 12, 10), 200)
    change = UAP(norm="l2", eps=0.6).universal(model, images[:50], labels[:50])
    assert float((model((images[50:] + change).clamp(0, 1)).argmax(1) != 0).float().mean()) > 0.95


def test_one_target_is_reached_and_different_ones_do_no_harm() -> None:
    model = Linear((3, 12, 10), 6)
    images = (0.5 + 0.1 * torch.randn(64, 3, 12, 10, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    labels = model(images).argmax(1)
    found = UAP(eps=0.15, epochs=20).perturb(model, images, labels, Goal(3))
    assert float((model(found).argmax(1) == 3).float().mean()) > 0.9
    targets = (labels + 1) % 6
    found = UAP(eps=0.15).perturb(model, images, labels, Goal(targets))
    assert int((model(found).argmax(1) == targets).sum()) >= int((model(images).argmax(1) == targets).sum())


def test_stops_when_all_are_fooled_and_changes_nothing_needlessly() -> None:
    model, images, labels = one_class((1, 8, 8), 10)
    assert not UAP().universal(model, images, 1 - labels).any()
    assert UAP(early_exit=False).universal(model, images, 1 - labels).shape == (1, 8, 8)


def test_same_change_for_every_image_inside_the_box() -> None:
    model, images, labels = one_class((3, 12, 10), 40)
    images[:20] = images[:20].round()
    found = UAP(eps=0.1).perturb(model, images, labels)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert float((found - images).abs().max()) <= 0.1 + 1e-6
    inner = found[20:] - images[20:]
    assert float((inner - inner[:1]).abs().max()) < 1e-6


def test_the_seed_orders_the_images() -> None:
    model = Linear((3, 12, 10), 6)
    images = torch.rand(64, 3, 12, 10, generator=torch.Generator().manual_seed(1))
    attack, labels = UAP(eps=0.02, batch_size=8, epochs=2), model(images).argmax(1)
    assert torch.equal(attack.universal(model, images, labels, seed=1), attack.universal(model, images, labels, seed=1))
    assert not torch.equal(attack.universal(model, images, labels, seed=1), attack.universal(model, images, labels, seed=2))


@pytest.mark.parametrize(
    ("field", "value"),
    [("norm", "l1"), ("eps", 0.0), ("step", -1.0), ("epochs", 0), ("momentum", 1.0), ("clip", 0.0), ("batch_size", 0)],
)
def test_wrong_settings_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} must .*got {value!r}"):
        UAP(**{field: value})
