"""The inner loop of all gradient attacks: inside the budget, towards the goal, and without a mark on the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mithridate.nn.ascent import Budget, ascend, project
from mithridate.roles import Goal


def small_net(seed: int = 0, channels: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(channels, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 9, 4)).train()


def batch(count: int = 12, channels: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, channels, 8, 8, generator=generator)
    images[0] = (images[0] > 0.5).float()  # on the bounds of the box
    return images, torch.randint(0, 4, (count,), generator=generator)


def length(delta: Tensor, norm: str) -> Tensor:
    return delta.flatten(1).abs().amax(1) if norm == "linf" else delta.flatten(1).norm(dim=1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "options", [{}, {"random_start": True}, {"early_exit": True}, {"fast": True}, {"momentum": 0.9}, {"loss": "margin"}]
)
def test_stays_in_the_box_and_inside_the_budget(norm: Any, channels: int, options: dict[str, Any]) -> None:
    model, (images, labels) = small_net(channels=channels), batch(channels=channels)
    found = ascend(model, images, labels, Budget(norm=norm, eps=0.1, **options), generator=torch.Generator().manual_seed(0))
    assert found.images.shape == images.shape
    assert found.images.dtype == images.dtype
    assert 0 <= float(found.images.min()) <= float(found.images.max()) <= 1
    assert float(length(found.images - images, norm).max()) <= 0.1 + 1e-6
    assert torch.equal(found.predicted, model.eval()(found.images).argmax(1))
    assert torch.equal(found.fooled, found.predicted != labels)


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_objective_rises(loss: Any) -> None:
    model, (images, labels) = small_net(), batch()
    one = ascend(model, images, labels, Budget(eps=1e-6, steps=1, loss=loss)).objective
    many = ascend(model, images, labels, Budget(eps=0.05, loss=loss)).objective
    assert bool((many > one).all())


def test_targets_lower_the_loss_of_their_class() -> None:
    model, (images, labels) = small_net(), batch()
    targets = (labels + 1 + torch.arange(len(labels)) % 3) % 4
    found = ascend(model, images, labels, Budget(norm="l2", eps=3, steps=30), Goal(targets))
    assert torch.equal(found.fooled, found.predicted == targets)
    assert float(found.fooled.float().mean()) > 0.9
    assert torch.equal(
        ascend(model, images, labels, Budget(eps=0.1), Goal(2)).images,
        ascend(model, images, labels, Budget(eps=0.1), Goal(torch.full_like(labels, 2))).images,
    )


def test_model_is_left_as_it_was_also_when_it_raises() -> None:
    model, (images, labels) = small_net(), batch()
    model[0].weight.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ascend(model, images, labels, Budget())
    with pytest.raises(ValueError, match="labels and target must lie in"):
        ascend(model, images, labels + 4, Budget())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 5
    assert all(p.grad is None for p in model.parameters())


def test_fooled_images_leave_the_batch_and_stay() -> None:
    model, (images, _) = small_net(), batch(32)
    labels = model.eval()(images).argmax(1)
    wrong = (labels + 1) % 4
    start = torch.where(torch.arange(32) < 16, labels, wrong)  # the second half is misclassified from the start
    early = ascend(model, images, start, Budget(eps=0.03, early_exit=True))
    late = ascend(model, images, start, Budget(eps=0.03))
    assert torch.equal(early.images[16:], images[16:])
    assert bool(early.fooled[16:].all())
    assert bool((early.fooled >= late.fooled).all())
    assert (late.gradients, late.forwards) == (320, 352)
    assert early.gradients < late.gradients


def test_early_exit_takes_the_same_path() -> None:
    """What another image does cannot change an image's path: each image alone gives what the batch gives."""
    model, (images, labels) = small_net(), batch(6)
    together = ascend(model, images, labels, Budget(eps=0.05, early_exit=True)).images
    alone = [ascend(model, images[i : i + 1], labels[i : i + 1], Budget(eps=0.05, early_exit=True)).images for i in range(6)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)


def test_verdict_of_the_fast_loop_is_taken_in_full_precision() -> None:
    """A model that bf16 sees fooled and fp32 does not: the image must go on until fp32 agrees."""

    class Rounding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen = x.mean((1, 2, 3)) + (0.05 if torch.is_autocast_enabled("cpu") else 0.0)
            return torch.stack([torch.full_like(seen, 0.6), seen], 1)

    images, labels = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    found = ascend(Rounding(), images, labels, Budget(eps=0.2, steps=8, early_exit=True, fast=True))
    assert bool(found.fooled.all())
    assert bool((found.images.mean((1, 2, 3)) > 0.6).all())


class Viewing(nn.Module):
    """Flattens with `view`, as many models do, which channels-last features do not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = small_net()[:3], nn.Linear(8 * 9, 4)
        self.seen: list[tuple[bool, int]] = []
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(4, 72, generator=torch.Generator().manual_seed(0)))
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        self.seen.append((features.dtype == torch.bfloat16, len(x)))
        return self.head(features.view(len(x), -1))


class Mixing(Viewing):
    """Demands float32 features."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x).contiguous()
        self.seen.append((features.dtype == torch.bfloat16, len(x)))
        if features.dtype != torch.float32:
            raise RuntimeError("float32 wanted")
        return self.head(features.flatten(1))


def test_fast_is_as_fast_as_the_model_allows() -> None:
    images, labels = batch()
    for model, in_bf16 in ((Viewing(), True), (Mixing(), False)):
        fast = ascend(model, images, labels, Budget(eps=0.05, steps=3, fast=True))
        assert all(dtype is in_bf16 for dtype, count in model.seen[2:-1]) and model.seen[-1] == (False, 12)
        slow = ascend(model, images, labels, Budget(eps=0.05, steps=3))
        assert torch.equal(fast.predicted, slow.predicted)


def test_few_batch_sizes_occur_while_images_leave() -> None:
    model, (images, _) = Viewing(), batch(64)
    labels = model.eval()(images).argmax(1)
    for fast in (False, True):
        model.seen.clear()
        found = ascend(model, images, labels, Budget(eps=0.1, steps=20, step=0.005, early_exit=True, fast=fast))
        sizes = [count for _, count in model.seen]
        assert all(count % 8 == 0 for count in sizes[2 * fast : 20 + 2 * fast] if count > 8)
        assert found.gradients < 64 * 20 and len(set(sizes)) > 3
        assert bool(found.fooled.float().mean() > 0.9)


def test_flat_loss_moves_nothing_and_stays_finite() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    nn.init.zeros_(model[1].weight)
    images, labels = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1])
    for norm in ("linf", "l2"):
        assert torch.equal(ascend(model, images, labels, Budget(norm=norm)).images, images)


def test_tiny_gradients_give_full_steps() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        model[1].weight.mul_(1e-30)
    images, labels = torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 1])
    found = ascend(model, images, labels, Budget(norm="l2", eps=0.1))
    assert torch.allclose(length(found.images - images, "l2"), torch.tensor(0.1), atol=1e-5)


def test_works_where_gradients_are_off() -> None:
    model, (images, labels) = small_net(), batch()
    with torch.no_grad():
        off = ascend(model, images, labels, Budget(eps=0.05))
    assert torch.equal(off.images, ascend(model, images, labels, Budget(eps=0.05)).images)
    assert not off.images.requires_grad


def test_random_starts_fill_the_ball_and_follow_the_generator() -> None:
    model, images, labels = (
        nn.Sequential(nn.Flatten(), nn.Linear(12, 2)),
        torch.full((500, 3, 2, 2), 0.5),
        torch.zeros(500, dtype=torch.int64),
    )
    nn.init.zeros_(model[1].weight)
    for norm, expected in (("linf", 12 / 13), ("l2", 12 / 13)):  # the mean radius of a uniform ball in 12 dimensions
        budget = Budget(norm=norm, eps=0.2, random_start=True)
        start = ascend(model, images, labels, budget, generator=torch.Generator().manual_seed(3)).images
        again = ascend(model, images, labels, budget, generator=torch.Generator().manual_seed(3)).images
        assert torch.equal(start, again)
        assert float(length(start - images, norm).mean()) == pytest.approx(0.2 * expected, rel=0.02)
    with pytest.raises(ValueError, match="generator must be given"):
        ascend(model, images, labels, budget)


def test_projection_is_idempotent_and_reaches_the_surface() -> None:
    center = torch.full((4, 3, 5, 5), 0.5)
    far = center + torch.randn(center.shape, generator=torch.Generator().manual_seed(0))
    for norm in ("linf", "l2"):
        budget = Budget(norm=norm, eps=0.1)
        once = project(far, center, budget)
        assert torch.allclose(length(once - center, norm), torch.tensor(0.1), atol=1e-6)
        assert torch.allclose(project(once, center, budget), once, atol=1e-7)


@pytest.mark.parametrize(
    ("field", "value"),
    [("norm", "l1"), ("eps", 0.0), ("eps", -1.0), ("eps", float("nan")), ("step", 0.0), ("steps", 0), ("momentum", 1.0), ("loss", "dlr")],
)
def test_budget_names_field_and_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} must .*got {value!r}"):
        Budget(**{field: value})
