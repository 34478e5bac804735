"""PGD against linear models, whose worst case inside a ball is known exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from linear import SHAPES, radii
from linear import problem as near
from mithridate.nn.ascent import Budget, ascend
from mithridate.roles import Goal
from mithridate.threats.evasion.pgd import PGD


class Linear(nn.Module):
    """Logits w x + b of the flattened image."""

    def __init__(self, shape: tuple[int, int, int], classes: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size = shape[0] * shape[1] * shape[2]
        self.weight = nn.Parameter(torch.randn(classes, size, generator=generator))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


def problem(shape: tuple[int, int, int], count: int, classes: int = 2) -> tuple[Linear, Tensor, Tensor]:
    """A linear model and images away from the bounds of the box, classified correctly."""
    model = Linear(shape, classes)
    images = 0.3 + 0.4 * torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))
    return model, images, model(images).argmax(1)


def margin(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    logits = model(images).detach()
    return logits.gather(1, 1 - labels[:, None])[:, 0] - logits.gather(1, labels[:, None])[:, 0]


@pytest.mark.parametrize(("norm", "eps", "order"), [("linf", 8 / 255, 1), ("l2", 0.5, 2)])
@pytest.mark.parametrize(("shape", "count"), [((1, 8, 8), 1), ((3, 8, 8), 64), ((3, 5, 7), 5)])
@pytest.mark.parametrize("random_start", [False, True])
def test_reaches_the_exact_worst_case_of_a_linear_model(
    norm: Any, eps: float, order: int, shape: tuple[int, int, int], count: int, random_start: bool
) -> None:
    model, images, labels = problem(shape, count)
    attack = PGD(norm=norm, eps=eps, steps=40, random_start=random_start, early_exit=False)
    found = attack.perturb(model, images, labels)
    gain = eps * (model.weight[0] - model.weight[1]).detach().norm(p=order)
    reached = margin(model, found, labels) - margin(model, images, labels)
    assert torch.allclose(reached, gain.expand(count), rtol=1e-4)


@pytest.mark.parametrize(("norm", "eps", "order"), [("linf", 8 / 255, 1), ("l2", 0.5, 2)])
def test_targets_per_image_reach_their_exact_worst_case(norm: Any, eps: float, order: int) -> None:
    """Four classes of which two matter: the others are far below, so that the margin to the target is linear."""
    model, images, _ = problem((3, 6, 6), 16, classes=4)
    with torch.no_grad():
        model.bias[2:] = -1000
    labels = torch.arange(16) % 2
    found = PGD(norm=norm, eps=eps, steps=40, loss="margin", early_exit=False).perturb(model, images, labels, Goal(1 - labels))
    gain = eps * (model.weight[0] - model.weight[1]).detach().norm(p=order)
    assert torch.allclose(margin(model, found, labels) - margin(model, images, labels), gain.expand(16), rtol=1e-4)


def test_fooling_is_decided_exactly_at_the_radius() -> None:
    """Just inside the radius that the margin asks for nothing is fooled, just outside everything is."""
    model, images, labels = problem((3, 8, 8), 32)
    per_unit = (model.weight[0] - model.weight[1]).detach().norm(p=1)
    for i in range(32):
        radius = float(-margin(model, images[i : i + 1], labels[i : i + 1]) / per_unit)
        if radius > 0.25:
            continue
        for scale, fooled in ((0.999, False), (1.001, True)):
            attack = PGD(eps=radius * scale, random_start=False)
            found = attack.perturb(model, images[i : i + 1], labels[i : i + 1])
            assert bool(model(found).argmax(1) != labels[i]) is fooled


@pytest.mark.parametrize(("shape", "count"), SHAPES)
@pytest.mark.parametrize(("norm", "fast"), [("linf", True), ("linf", False), ("l2", True), ("l2", False)])
def test_needs_hardly_more_than_the_exact_radius(shape: Any, count: int, norm: Any, fast: bool) -> None:
    model, images, labels = near(shape, count, classes=2)
    exact = radii(model, images, labels, norm)
    for scale, fooled in ((0.995, False), (1.05, True)):
        for i in range(min(count, 4)):
            attack = PGD(norm=norm, eps=float(exact[i]) * scale, steps=20, random_start=False, fast=fast)
            found = attack.perturb(model, images[i : i + 1], labels[i : i + 1])
            assert bool(model(found).argmax(1) != labels[i]) is fooled
    together = PGD(norm=norm, eps=float(exact.max()) * 1.05, steps=20, random_start=False, fast=fast).perturb(model, images, labels)
    assert bool((model(together).argmax(1) != labels).all())


@pytest.mark.parametrize("channels", [1, 3])
def test_images_on_the_bounds_reach_the_boxed_worst_case(channels: int) -> None:
    """In the box the worst L-inf point is known too: every pixel goes to its own nearest bound or to the radius."""
    model = Linear((channels, 6, 6), 2)
    images = (torch.rand(8, channels, 6, 6, generator=torch.Generator().manual_seed(2)) > 0.5).float()
    labels = model(images).argmax(1)
    sign = torch.where(labels == 0, 1.0, -1.0)[:, None, None, None] * (model.weight[1] - model.weight[0]).detach().sign().view(
        1, channels, 6, 6
    )
    best = (images + 0.1 * sign).clamp(0, 1)
    found = PGD(eps=0.1, random_start=False, early_exit=False).perturb(model, images, labels)
    assert torch.allclose(found, best, atol=1e-6)


def test_restarts_find_more_and_never_less() -> None:
    """A loss with a poor and a good hill on two sides of the image: one start climbs either, many find the good one."""

    class Hills(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            t = x.mean((1, 2, 3)) - 0.5
            hill = torch.where(t > 0, 5 * t, -15 * t)
            return torch.stack([torch.full_like(t, 1.0), hill], 1)

    images, labels = torch.full((40, 1, 1, 1), 0.5), torch.zeros(40, dtype=torch.int64)
    fooled = [
        int((Hills()(PGD(eps=0.1, restarts=r).perturb(Hills(), images, labels, seed=1)).argmax(1) != labels).sum()) for r in (1, 2, 8)
    ]
    assert 5 < fooled[0] < 35
    assert fooled[0] < fooled[1] < fooled[2]
    strongest = PGD(eps=0.1, restarts=8, early_exit=False).perturb(Hills(), images, labels, seed=1)
    assert float((Hills()(strongest)[:, 1] > 1.4).float().mean()) > 0.9


def test_batches_do_not_change_a_deterministic_attack() -> None:
    model, images, labels = problem((3, 8, 8), 10)
    whole = PGD(random_start=False).perturb(model, images, labels, Goal(1 - labels))
    parts = PGD(random_start=False, batch_size=3).perturb(model, images, labels, Goal(1 - labels))
    assert torch.allclose(whole, parts, atol=1e-6)


def test_default_step_is_a_quarter_of_the_radius() -> None:
    model, images, labels = problem((3, 8, 8), 2)
    one = ascend(model, images, labels, Budget(eps=0.2, steps=1)).images
    assert torch.allclose((one - images).abs(), torch.tensor(0.05), atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [("eps", 0.0), ("eps", -0.1), ("norm", "l7"), ("step", -1.0), ("steps", 0), ("restarts", 0), ("batch_size", 0), ("momentum", 2.0)],
)
def test_wrong_settings_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} must .*got {value!r}"):
        PGD(**{field: value})


def test_wrong_inputs_are_named() -> None:
    model, images, labels = problem((3, 8, 8), 4)

    def gives(output: Any) -> nn.Module:
        class Odd(nn.Module):
            def forward(self, x: Tensor) -> Any:
                return output(model(x))

        return Odd()

    cases = [
        (r"images must lie in \[0, 1\], got \[1.*, 1.5\]", model, images + 1.5 - images.max(), labels, Goal()),
        (r"images must lie in \[0, 1\]", model, images * float("nan"), labels, Goal()),
        (r"images must be float .* got torch.uint8", model, images.byte(), labels, Goal()),
        (r"images must be float .* with n > 0", model, images[:0], labels[:0], Goal()),
        (r"labels must be int64 of shape \(4,\), got torch.int64 \(3,\)", model, images, labels[:3], Goal()),
        (r"labels must be int64", model, images, labels.float(), Goal()),
        (r"labels and target must lie in \[0, 2\), got 2", model, images, labels + 2 - labels.min(), Goal()),
        (r"labels and target must lie in \[0, 2\), got 7", model, images, labels, Goal(7)),
        (r"target must be int64 of shape \(4,\)", model, images, labels, Goal(labels[:2])),
        (r"model must return a tensor of logits .* got tuple", gives(lambda z: (z, z)), images, labels, Goal()),
        (r"model must return finite logits", gives(lambda z: z * float("inf")), images, labels, Goal()),
        (r"model must return logits of shape \(4, classes\)", gives(lambda z: z[:2]), images, labels, Goal()),
    ]
    for message, net, x, y, goal in cases:
        with pytest.raises(ValueError, match=f"^{message}"):
            PGD().perturb(net, x, y, goal)
