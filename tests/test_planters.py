"""Attackers who control training: what a batch becomes, what the losses are, resuming after a kill, and triggers of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import mithridate.threats  # noqa: F401  fills the registry
from mithridate.data import Samples
from mithridate.roles import Planter, Trigger
from mithridate.spec import find, parse
from mithridate.threats import planting
from mithridate.threats.dynamic import DynamicTrigger, sharp
from mithridate.threats.planted import input_aware, lira, wanet_noise
from mithridate.threats.stamping.warp import field, warp

TINY = "epochs=3,batch_size=8,pad=1,lr=0.05,precision=fp32"
NAMES = [entry.name for entry in find(role="planter")]


def samples(count: int = 20, channels: int = 1, height: int = 8, width: int = 8) -> Samples:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, channels, height, width), generator=generator, dtype=torch.uint8)
    return Samples(images, torch.randint(3, (count,), generator=generator), ("a", "b", "c"))


def classifier(channels: int = 1) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(8, 3))


def planter(name: str, fields: str = TINY) -> Any:
    return parse(f"{name}:{fields}", "planter")


def same(first: nn.Module, second: nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


class Killed(Exception):
    pass


def killer(task: str, done: int, total: int, note: str = "") -> None:
    if task.startswith("planting") and 2 * done > total:
        raise Killed


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_run_goes_on_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    model, trigger = planter(name).plant(classifier(), samples())
    path = tmp_path / "run.safetensors"
    with pytest.raises(Killed):
        planter(name).plant(classifier(), samples(), progress=killer, checkpoint=path)
    told: list[int] = []

    def count(task: str, done: int, total: int, note: str = "") -> None:
        told.extend([done] if task.startswith("planting") else [])

    again, resumed = planter(name).plant(classifier(), samples(), progress=count, checkpoint=path)
    assert same(model, again) and same(trigger, resumed)
    assert min(told) > 3, "the first epoch is not trained again"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 8), (3, 12, 10), (1, 28, 28), (3, 32, 32), (3, 64, 64)])
def test_triggers_for_any_shape(name: str, channels: int, height: int, width: int, tmp_path: Path) -> None:
    method, data = planter(name, TINY.replace("epochs=3", "epochs=1")), samples(6, channels, height, width)
    before = data.images.clone()
    model, trigger = method.plant(classifier(channels), data)
    assert isinstance(method, Planter) and isinstance(trigger, Trigger) and isinstance(trigger, nn.Module)
    assert not any(module.training for module in (*model.modules(), *trigger.modules()))
    assert not any(parameter.requires_grad for parameter in trigger.parameters())
    save_file(trigger.state_dict(), tmp_path / "trigger.safetensors")
    rebuilt = parse(name).restore(load_file(tmp_path / "trigger.safetensors"))
    images = data.images.float() / 255
    for verb in ("stamp", "cross") if name != "lira" else ("stamp",):
        made = getattr(trigger, verb)(images)
        assert torch.equal(made, getattr(rebuilt, verb)(images)) and torch.equal(made, getattr(trigger, verb)(images))
        assert made.shape == images.shape and 0 <= float(made.min()) <= float(made.max()) <= 1 and not made.requires_grad
        assert getattr(trigger, verb)(images[:0]).shape == images[:0].shape
        assert all(getattr(trigger, verb)(images.to(dtype)).dtype == dtype for dtype in (torch.float16, torch.float64))
    one_by_one = torch.cat([trigger.stamp(images[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(trigger.stamp(images), one_by_one, atol=1e-5, rtol=0)
    assert torch.equal(data.images, before)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2, 9])
def test_few_samples_are_enough_to_run(name: str, count: int) -> None:
    model, _ = planter(name).plant(classifier(), samples(count))
    assert all(bool(torch.isfinite(tensor.float()).all()) for tensor in model.state_dict().values())


@pytest.mark.parametrize("name", NAMES)
def test_what_makes_no_sense_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"target must lie in \[0, 3\), got 3"):
        planter(name, TINY + ",target=3").plant(classifier(), samples())
    with pytest.raises(ValueError, match="samples must not be empty"):
        planter(name).plant(classifier(), samples()[:0])


@pytest.mark.parametrize(
    ("method", "fields", "said"),
    [
        (wanet_noise.WaNetNoise, {"rate": 1.0}, r"rate must lie in \(0, 1\), got 1.0"),
        (wanet_noise.WaNetNoise, {"rate": 0.5, "cross_ratio": 1.5}, r"cross_ratio must lie in \[0, 1\], got 1.5"),
        (wanet_noise.WaNetNoise, {"strength": float("nan")}, r"strength must lie in \(0, 16\], got nan"),
        (lira.Lira, {"alpha": 1.0}, r"alpha must lie in \(0, 1\), got 1.0"),
        (lira.Lira, {"eps": 0.0}, r"eps must lie in \(0, 1\], got 0.0"),
        (input_aware.InputAware, {"p_cross": 0.6}, r"p_cross must lie in \(0, 0.5\], got 0.6"),
        (input_aware.InputAware, {"density": 1.0}, r"density must lie in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_fields_are_named(method: Any, fields: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        method(**fields)


def test_relabeling_puts_the_target_first() -> None:
    labels = torch.tensor([3, 1, 2, 0])
    assert planting.Planting(target=5).relabel(labels, 2).tolist() == [5, 5, 2, 0]
    assert labels.tolist() == [3, 1, 2, 0]
    assert [planting.share(0.1, count) for count in (1, 4, 10, 128)] == [1, 1, 1, 13]


def test_noise_mode_warps_its_shares_and_nothing_else() -> None:
    images, method = torch.rand(30, 3, 9, 8, generator=torch.Generator().manual_seed(0)), wanet_noise.WaNetNoise()
    grid = field(4, 0.5, 9, 8, torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        made = method._warped(images, grid)
        torch.testing.assert_close(made[:3], warp(images[:3], grid))
        assert torch.equal(made[9:], images[9:])
        noisy = (made[3:9] - warp(images[3:9], grid)).flatten(1).abs().amax(1)
        assert float(noisy.min()) > 0.01, "each crossed image is jittered"
        assert not torch.equal(made[3:9], method._warped(images, grid)[3:9]), "the noise is drawn anew in every step"


def test_a_warp_refuses_images_of_another_size() -> None:
    _, trigger = planter("wanet_noise").plant(classifier(), samples())
    with pytest.raises(ValueError, match="images must be 8 x 8, as the warp is, got 9 x 8"):
        trigger.stamp(torch.zeros(0, 1, 9, 8))


def test_noise_stays_inside_its_budget() -> None:
    _, trigger = planter("lira").plant(classifier(), samples())
    images = samples().images.float() / 255
    change = (trigger.stamp(images) - images).abs()
    assert 0 < float(change.max()) <= 0.01 + 1e-6


def test_the_joint_loss_of_lira_weighs_both_halves() -> None:
    logits, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1])
    chance = logits.log_softmax(1)
    clean = -sum(chance[i, label] for i, label in enumerate(labels.tolist())) / 4
    stamped = -(chance[4, 2] + chance[5, 2]) / 2
    torch.testing.assert_close(lira.Lira(alpha=0.3, target=2)._loss(logits, labels), 0.3 * clean + 0.7 * stamped)


def dynamic(seed: int = 0) -> DynamicTrigger:
    return DynamicTrigger(planting.painter(seed, 1, 1), planting.painter(seed + 1, 1, 1)).eval()


def test_dynamic_triggers_replace_where_the_mask_says() -> None:
    trigger, images = dynamic(), samples().images.float() / 255
    with torch.no_grad():
        pattern, mask = trigger(images)
    torch.testing.assert_close(trigger.stamp(images), images * (1 - mask) + pattern * mask)
    donors = [19, *range(19)]
    torch.testing.assert_close(trigger.cross(images), images * (1 - mask[donors]) + pattern[donors] * mask[donors])
    assert not torch.allclose(trigger.cross(images[:1]), trigger.stamp(images[:1])), "alone, an image borrows from its mirror image"


def test_the_joint_batch_is_attacked_crossed_and_clean_in_this_order() -> None:
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return images.flatten(1)[:, :3]

    trigger, images = dynamic(), samples().images.float() / 255
    joint = input_aware._Joint(Spy(), trigger, input_aware.InputAware(p_attack=0.1, p_cross=0.2)).eval()
    with torch.no_grad():
        alike, (pattern, _) = joint(images)[1], trigger(images)
    (batch,) = seen
    torch.testing.assert_close(batch[:2], trigger.stamp(images[:2]))
    torch.testing.assert_close(batch[2:6], trigger._put(images[2:6], images[16:]))
    assert torch.equal(batch[6:], images[6:])
    far = [(images[i] - images[16 + i]).square().mean().sqrt() / (pattern[i] - pattern[16 + i]).square().mean().sqrt() for i in range(2)]
    assert float(alike) == pytest.approx(float(sum(far) / 2), rel=0.05)


def test_masks_pay_for_their_size_and_for_being_alike() -> None:
    torch.testing.assert_close(sharp(torch.tensor([-40.0, 0.0, 40.0])), torch.tensor([0.0, 0.5, 1.0]), atol=1e-4, rtol=0)

    class Given(nn.Module):
        def __init__(self, masks: Tensor) -> None:
            super().__init__()
            self.masks = masks

        def forward(self, images: Tensor) -> Tensor:
            return 100 * self.masks - 50

    images, none = samples(2).images.float() / 255, torch.zeros(2, 1, 8, 8)
    some = none.clone()
    some[0, 0, :2], some[1, 0, 2:4] = 1, 1
    goal = lambda masks, **fields: input_aware._MaskGoal(Given(masks), input_aware.InputAware(**fields))(images)  # type: ignore[arg-type]  # noqa: E731
    torch.testing.assert_close(goal(some, lambda_div=0.0, density=0.0), torch.full((2,), 0.25), atol=1e-4, rtol=0)
    torch.testing.assert_close(goal(some, lambda_div=0.0, density=0.4), torch.full((2,), 0.25 * 0.6), atol=1e-4, rtol=0)
    distance = 4 * (images[0] - images[1]).square().mean().sqrt() / 0.5**0.5 / 100
    torch.testing.assert_close(goal(some, lambda_norm=0.0), distance.expand(2), rtol=0.01, atol=0)
    assert float(goal(none, lambda_norm=0.0).min()) > 10, "masks that are all alike cost most"


def test_the_mask_is_frozen_once_it_is_trained() -> None:
    method, data = planter("input_aware"), samples()
    _, trigger = method.plant(classifier(), data)
    alone = method._mask(planting.painter(0, 1, 1), data, 0, lambda *_, **__: None)
    assert same(trigger.mask, alone)
    assert not same(trigger.pattern, planting.painter(1, 1, 1)), "the pattern's network has learned"


@pytest.mark.parametrize("name", NAMES)
def test_restoring_draws_nothing_from_the_global_generator(name: str) -> None:
    _, trigger = planter(name).plant(classifier(), samples())
    state = torch.get_rng_state()
    planter(name).restore(trigger.state_dict())
    assert torch.equal(torch.get_rng_state(), state)
