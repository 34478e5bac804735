"""The training loop: schedules, purity, determinism, resuming after a kill, and several processes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mithridate.data import Samples
from mithridate.loops import Hooks, Recipe, train


def samples(count: int = 50, seed: int = 0, classes: int = 3) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    images = torch.randint(0, 128, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images[torch.arange(count), 0, labels] = 255
    return Samples(images, labels, tuple("abc"[:classes]))


class Net(nn.Module):
    """BatchNorm, dropout and weights in channels-last memory: all that a resumed run must carry on."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv, self.norm, self.drop = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.3)
            self.head = nn.Linear(8 * 64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(F.relu(self.norm(self.conv(x)))).flatten(1))


def digest(model: nn.Module) -> str:
    return hashlib.sha256(b"".join(t.detach().numpy().tobytes() for t in model.state_dict().values())).hexdigest()


RECIPE = Recipe(epochs=4, batch_size=16, lr=0.05, pad=1, flip=True, precision="fp32")


class Killed(Exception):
    pass


class Killer:
    """A progress callback that ends the run the first time an epoch is done, and counts steps."""

    def __init__(self, after: int | None = None) -> None:
        self.after, self.seen = after, []

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        self.seen.append((done, total))
        if self.after is not None and len(self.seen) > self.after:
            raise Killed


def run(
    path: Path | None, killer: Killer | None = None, *, recipe: Recipe = RECIPE, seed: int = 0, data: Samples | None = None, model: int = 0
) -> nn.Module:
    return train(
        Net(model), samples() if data is None else data, recipe, seed=seed, hooks=Hooks(checkpoint=path, progress=killer or Killer())
    )


def test_schedules_equal_their_formulas() -> None:
    assert {Recipe(schedule="constant").factor(step, 10) for step in range(200)} == {1.0}
    step = Recipe(schedule="step", epochs=8)
    assert [step.factor(i, 1) for i in range(8)] == [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]
    cosine = Recipe(schedule="cosine", epochs=10)
    factors = [cosine.factor(i, 10) for i in range(100)]
    assert factors[:10] == pytest.approx([i / 10 for i in range(10)]), "the first epoch warms up"
    assert factors[10:] == pytest.approx([0.5 * (1 + torch.tensor(torch.pi * i / 90).cos().item()) for i in range(90)], abs=1e-6)
    short = Recipe(schedule="cosine", epochs=1)
    assert max(short.factor(i, 100) for i in range(100)) == short.factor(20, 100) == 1.0, "a fifth of a single epoch warms up"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0), ("batch_size", 0), ("devices", 0), ("lr", 0.0), ("lr", float("nan")), ("lr", float("inf")), ("momentum", 1.0),
        ("momentum", -0.1), ("weight_decay", -1.0), ("weight_decay", float("nan")), ("pad", -1), ("schedule", "linear"),
        ("precision", "fp8"),
    ],
)  # fmt: skip
def test_wrong_recipes_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{field} must .*got .*{value}"):
        Recipe(**{field: value})  # type: ignore[arg-type]


def test_plain_sgd_of_pytorch_gives_the_same_weights() -> None:
    """An oracle written by hand, without augmentation, dropout or schedule."""
    data, recipe = samples(48), Recipe(epochs=3, batch_size=16, lr=0.05, schedule="constant", pad=0, precision="fp32")
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    expected = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    expected.load_state_dict(model.state_dict())
    optimizer = torch.optim.SGD(expected.parameters(), 0.05, 0.9, weight_decay=5e-4, nesterov=True)
    for epoch in range(3):
        for index in torch.randperm(48, generator=torch.Generator().manual_seed(7 * 1_000_003 + epoch)).split(16):
            optimizer.zero_grad()
            F.cross_entropy(expected(data.images[index].float() / 255), data.labels[index]).backward()
            optimizer.step()
    trained = train(model, data, recipe, seed=7)
    for mine, theirs in zip(trained.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_learns_and_leaves_the_given_model_alone() -> None:
    model, data = Net(), samples(120)
    model.norm.eval()
    model.head.bias.requires_grad_(False)
    before = digest(model)
    trained = train(model, data, RECIPE)
    assert digest(model) == before
    assert [m.training for m in (model, model.conv, model.norm)] == [True, True, False]
    assert not model.head.bias.requires_grad and model.head.bias.grad is None
    assert not any(m.training for m in trained.modules())
    fresh = samples(120, seed=1)
    with torch.no_grad():
        assert (trained(fresh.images / 255).argmax(1) == fresh.labels).float().mean() > 0.9
    assert int(trained.norm.num_batches_tracked) == 4 * 8


def test_same_seed_same_bytes_other_seed_other_bytes_and_no_global_draws() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = digest(run(None))
    torch.rand(3)
    assert digest(run(None)) == first
    assert digest(run(None, seed=1)) != first
    torch.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), before)
    run(None)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("reports", [1, 2, 3])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, momentum: float, reports: int) -> None:
    recipe = Recipe(epochs=4, batch_size=16, lr=0.05, pad=1, flip=True, momentum=momentum, precision="fp32")
    whole = digest(run(None, recipe=recipe))
    path = tmp_path / "made" / "run.safetensors"
    with pytest.raises(Killed):
        run(path, Killer(after=reports), recipe=recipe)
    assert [p.name for p in path.parent.iterdir()] == ["run.safetensors"]
    again = Killer()
    assert digest(run(path, again, recipe=recipe)) == whole
    assert len(again.seen) == 4 - reports, "only the missing epochs are trained"
    finished = Killer()
    assert digest(run(path, finished, recipe=recipe)) == whole
    assert finished.seen == []


def test_tied_weights_can_be_checkpointed(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 3)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.two(self.one(x.flatten(1)).relu()).relu())

    model, path = Tied(), tmp_path / "run.safetensors"
    recipe = Recipe(epochs=3, batch_size=16, lr=0.05, pad=0, precision="fp32")
    whole = digest(train(model, samples(), recipe))
    with pytest.raises(Killed):
        train(model, samples(), recipe, hooks=Hooks(checkpoint=path, progress=Killer(after=1)))
    assert digest(train(model, samples(), recipe, hooks=Hooks(checkpoint=path))) == whole


def changed(count: int) -> Samples:
    """The usual samples with one image changed and all labels alike: what another trigger would do."""
    data = samples(count)
    data.images[7] = 255 - data.images[7]
    return data


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"recipe": Recipe(epochs=4, batch_size=16, lr=0.04, pad=1, flip=True, precision="fp32")},
        {"data": samples(49)},
        {"data": samples(50, seed=3)},
        {"data": changed(50)},
        {"data": Samples(samples().images, samples().labels.roll(1), samples().classes)},
        {"model": 1},
    ],
    ids=["seed", "recipe", "count", "data", "one image", "labels", "initial weights"],
)
def test_the_checkpoint_of_another_run_is_ignored(tmp_path: Path, other: dict[str, object]) -> None:
    path = tmp_path / "run.safetensors"
    with pytest.raises(Killed):
        run(path, Killer(after=2))
    assert digest(run(path, **other)) == digest(run(None, **other))  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", ["empty", "cut", "half a header", "garbage", "one bit", "longer"])
def test_a_damaged_checkpoint_means_starting_again(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "run.safetensors"
    with pytest.raises(Killed):
        run(path, Killer(after=2))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-9] ^= 64
    made = {"empty": b"", "cut": whole[:-100], "half a header": whole[:20], "garbage": b"\xff" * 500, "one bit": bytes(flipped)}
    path.write_bytes(made.get(damage, whole + b"x"))
    killer = Killer()
    assert digest(run(path, killer)) == digest(run(None))
    assert len(killer.seen) == 4


def test_a_loss_that_diverges_is_named() -> None:
    with pytest.raises(ValueError, match=r"loss must stay finite, got (nan|inf) in epoch \d+; a lower lr"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), samples(), Recipe(epochs=200, lr=1e30, schedule="constant", precision="fp32"))


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="samples must not be empty"):
        train(Net(), samples()[:0], RECIPE)


def test_hooks_see_what_they_are_promised() -> None:
    seen = []

    def transform(model: nn.Module, images: Tensor, labels: Tensor, epoch: int) -> Tensor:
        seen.append((type(model), images.dtype, float(images.max()) <= 1, len(images), len(labels), epoch))
        return torch.zeros_like(images)

    data = samples(20)
    trained = train(Net(), data, Recipe(epochs=2, batch_size=16, lr=0.05, precision="fp32"), hooks=Hooks(transform=transform))
    assert seen == [(Net, torch.float32, True, size, size, epoch) for epoch in range(2) for size in (16, 4)]
    assert float(trained.norm.running_mean.abs().max()) > 0, "the transformed images are what is trained on"
    doubled = train(Net(), data, RECIPE, hooks=Hooks(loss=lambda logits, labels: 2 * F.cross_entropy(logits, labels)))
    assert digest(doubled) != digest(train(Net(), data, RECIPE))


@pytest.mark.parametrize("count", [1, 16, 17, 33])
def test_a_last_batch_of_one_joins_the_one_before(count: int) -> None:
    """BatchNorm over one value per channel cannot be trained; every image is still seen in every epoch."""
    sizes: list[int] = []

    def transform(model: nn.Module, images: Tensor, labels: Tensor, epoch: int) -> Tensor:
        sizes.append(len(images))
        return images

    train(Net(), samples(count), Recipe(epochs=1, batch_size=16, lr=0.05, precision="fp32"), hooks=Hooks(transform=transform))
    assert sum(sizes) == count
    assert count == 1 or min(sizes) > 1


def test_bf16_trains_too() -> None:
    recipe = Recipe(epochs=4, batch_size=16, lr=0.05, pad=0, precision="bf16")
    trained, data = train(Net(), samples(100), recipe), samples(100, seed=1)
    assert {p.dtype for p in trained.parameters()} == {torch.float32}
    with torch.no_grad():
        assert (trained(data.images / 255).argmax(1) == data.labels).float().mean() > 0.9


SCRIPT = """
import sys, torch
from pathlib import Path
from safetensors.torch import save_file
from torch import nn
from mithridate.data import Samples
from mithridate.loops import Recipe, train

if __name__ == "__main__":
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    data = Samples(torch.rand(32, 1, 8, 8, generator=generator), torch.randint(3, (32,), generator=generator), ("a", "b", "c"))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    devices = int(sys.argv[1])
    trained = train(model, data, Recipe(epochs=3, batch_size=8, lr=0.1, pad=0, precision="fp32", devices=devices))
    rank = torch.distributed.get_rank() if devices > 1 else 0
    save_file(trained.state_dict(), Path(sys.argv[2]) / f"{devices}-{rank}.safetensors")
    if devices > 1:
        torch.distributed.destroy_process_group()
"""


def test_two_processes_train_the_same_weights(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)
    for devices in ("1", "2"):
        command, environment = [sys.executable, script, devices, tmp_path], os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    from safetensors.torch import load_file

    alone, first, second = (load_file(tmp_path / f"{name}.safetensors") for name in ("1-0", "2-0", "2-1"))
    assert all(torch.equal(first[name], second[name]) for name in alone), "the processes agree bit for bit"
    for name, tensor in alone.items():
        torch.testing.assert_close(first[name], tensor)


class Viewing(nn.Module):
    """Flattens with `view`, as many models do, which channels-last features do not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU()), nn.Linear(256, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).view(len(x), -1))


def test_models_that_flatten_with_view_can_be_trained() -> None:
    trained = train(Viewing(), samples(48), replace(RECIPE, epochs=1))
    assert trained(samples(5).images / 255).shape == (5, 3)
