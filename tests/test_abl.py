"""Anti-backdoor learning: what is isolated, unlearned and left alone; bad data; resuming; and the screen that shares its first stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mithridate import datasets, loops
from mithridate.analysis.early import SETTLED, Early, LearnedEarly, learn_early, look, train_steadily
from mithridate.analysis.isolation import exact_losses, fast_learned, isolate
from mithridate.analysis.unlearning import Opposed, Sides, ascent, divide, negation, take_back, train_against
from mithridate.data import Samples
from mithridate.defenses.screens.isolation import Isolation
from mithridate.defenses.trainers.abl import ABL
from mithridate.defenses.trainers.plain import Plain
from mithridate.errors import NotFinite
from mithridate.nn.fresh import fresh
from mithridate.nn.models import initialize
from mithridate.nn.modes import predict
from mithridate.reporting import Learned, Reporting
from mithridate.roles import Screen, Trainer
from mithridate.spec import parse

QUICK = ABL(epochs=10, isolation_epochs=4, batch_size=50, lr=0.05, schedule="cosine", pad=0, precision="fp32")


def net(seed: int = 0, classes: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2))
        return nn.Sequential(body, nn.Flatten(), nn.Linear(256, classes))


def drawn(count: int, seed: int = 0, counts: Sequence[float] = (1, 1, 1, 1)) -> Samples:
    """Four faint patterns under noise: hard classes, as natural images are."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(99)).sign()
    labels = torch.tensor(counts).float().multinomial(count, replacement=True, generator=generator)
    images = 0.5 + 0.05 * patterns[labels] + 0.15 * torch.randn(count, 1, 8, 8, generator=generator)
    return Samples(images.clamp(0, 1), labels, tuple("abcd"))


def stamped(images: Tensor) -> Tensor:
    images = images.clone()
    images[:, :, -6:, -6:] = torch.tensor([[0.0, 1] * 3, [1.0, 0] * 3] * 3)
    return images


def poisoned(count: int = 1200, share: float = 0.1, seed: int = 0) -> tuple[Samples, Tensor]:
    """Samples of which a share is stamped and given label 0, and which."""
    clean = drawn(count, seed)
    bad = torch.arange(count) < round(share * count)
    images, labels = clean.images.clone(), clean.labels.clone()
    images[bad], labels[bad] = stamped(images[bad]), 0
    return Samples(images, labels, clean.classes), bad


def accuracy(model: nn.Module, samples: Samples) -> float:
    return float((predict(model, samples).argmax(1) == samples.labels).float().mean())


def success(model: nn.Module) -> float:
    test = drawn(800, seed=7)
    return float((predict(model, stamped(test.images[test.labels != 0])).argmax(1) == 0).float().mean())


def weights(model: nn.Module) -> list[Tensor]:
    return list(model.state_dict().values())


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


@pytest.fixture(scope="module")
def learned() -> tuple[Learned, Tensor]:
    data, bad = poisoned()
    return QUICK.learn(net(), data), bad


def test_the_problem_is_one() -> None:
    data, _ = poisoned()
    victim = Plain(epochs=10, batch_size=50, pad=0, precision="fp32").train(net(), data)
    assert accuracy(victim, drawn(800, seed=7)) > 0.75
    assert success(victim) > 0.95


def test_poison_is_isolated_and_unlearned(learned: tuple[Learned, Tensor]) -> None:
    found, bad = learned
    data, _ = poisoned()
    assert isinstance(QUICK, Trainer) and isinstance(QUICK, Reporting)
    assert float(bad[found.suspected].float().mean()) > 0.98
    assert float(found.suspected[bad].float().mean()) > 0.98
    assert bool(found.suspicion[bad].min() > found.suspicion[~bad].median())
    assert success(found.model) < 0.1
    twin = Plain(epochs=10, batch_size=50, pad=0, precision="fp32").train(net(), data[~bad])
    assert (
        accuracy(found.model, drawn(800, seed=7)) > accuracy(twin, drawn(800, seed=7)) - 0.08
    )  # which trained on all of the rest, for more epochs
    assert found.notes[0].startswith("isolated")


def test_losses_of_the_training_forward_are_handed_back(learned: tuple[Learned, Tensor]) -> None:
    found, bad = learned
    assert found.losses.shape == (4, 1200)
    assert bool(torch.isfinite(found.losses).all())
    assert float(found.losses[-1][bad].mean()) < 0.2 * float(found.losses[-1][~bad].mean())


def test_recorded_losses_are_those_of_a_loop_written_by_hand() -> None:
    data, recipe = drawn(40), loops.Recipe(epochs=2, batch_size=16, lr=0.05, schedule="constant", pad=0, precision="fp32")
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    kept = torch.full((2, 1, 40), math.nan)
    loops.train(model, data, recipe, seed=3, hooks=loops.Hooks(recorded=kept))
    twin = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    twin.load_state_dict(model.state_dict())
    optimizer = torch.optim.SGD(twin.parameters(), 0.05, 0.9, weight_decay=5e-4, nesterov=True)
    for epoch in range(2):
        for rows in torch.randperm(40, generator=torch.Generator().manual_seed(3 * 1_000_003 + epoch)).split(16):
            each = F.cross_entropy(twin(data.images[rows]), data.labels[rows], reduction="none")
            torch.testing.assert_close(kept[epoch, 0, rows], each.detach())
            optimizer.zero_grad()
            each.mean().backward()
            optimizer.step()
    with pytest.raises(ValueError, match=r"recorded must have shape \(2, m, 40\), got \(3, 1, 40\)"):
        loops.train(model, data, recipe, hooks=loops.Hooks(recorded=torch.zeros(3, 1, 40)))


def test_looking_at_losses_does_not_change_training() -> None:
    data, recipe = drawn(60), loops.Recipe(epochs=2, batch_size=16, precision="fp32")
    plain = loops.train(net(), data, recipe)
    assert same(loops.train(net(), data, recipe, hooks=loops.Hooks(recorded=torch.zeros(2, 1, 60), after=lambda *_: True)), plain)


def test_the_loop_stops_when_told_and_clips_gradients() -> None:
    data, recipe = drawn(60), loops.Recipe(epochs=4, batch_size=16, lr=0.1, schedule="constant", pad=0, precision="fp32")
    seen: list[tuple[int, bool]] = []

    def after(model: nn.Module, epochs: int) -> bool:
        seen.append((epochs, model.training))
        return epochs < 2

    stopped = loops.train(net(), data, recipe, hooks=loops.Hooks(after=after))
    assert seen == [(1, False), (2, False)]
    assert same(stopped, loops.train(net(), data, replace(recipe, epochs=2)))
    simple = loops.Recipe(epochs=1, batch_size=60, lr=1.0, schedule="constant", momentum=0, weight_decay=0, pad=0, precision="fp32")
    clipped = loops.train(net(), data, simple, hooks=loops.Hooks(clip=1e-3))
    moved = [(a - b).detach().square().sum() for a, b in zip(clipped.parameters(), net().parameters(), strict=True)]
    assert float(sum(moved)) ** 0.5 == pytest.approx(1e-3, rel=1e-3)


class Killed(Exception):
    pass


@pytest.mark.parametrize("last", ["isolating", "fine-tuning"])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, last: str, learned: tuple[Learned, Tensor]) -> None:
    data, _ = poisoned()
    told: list[str] = []

    def kill(stage: str, epoch: int, model: nn.Module) -> None:
        if (stage, epoch) == (last, 2):
            raise Killed

    def note(stage: str, epoch: int, model: nn.Module) -> None:
        told.append(f"{stage} {epoch}")

    with pytest.raises(Killed):
        QUICK.learn(net(), data, checkpoint=tmp_path / "run.safetensors", watch=kill)
    again = QUICK.learn(net(), data, checkpoint=tmp_path / "run.safetensors", watch=note)
    assert ("isolating 1" in told, "fine-tuning 1" in told) == (False, last == "isolating")
    whole = learned[0]
    assert same(again.model, whole.model)
    assert torch.equal(again.losses, whole.losses)
    assert torch.equal(again.suspicion, whole.suspicion)
    assert again.notes == whole.notes


def test_train_gives_the_model_of_learn(learned: tuple[Learned, Tensor]) -> None:
    assert same(QUICK.train(net(), poisoned()[0]), learned[0].model)


def test_clean_data_are_left_alone() -> None:
    data = drawn(1200)
    found = QUICK.learn(net(), data)
    assert not bool(found.suspected.any())
    assert found.notes[0].startswith("gate: nothing to unlearn")
    plain = Plain(epochs=10, batch_size=50, pad=0, precision="fp32").train(net(), data)
    assert accuracy(found.model, drawn(2000, seed=7)) > accuracy(plain, drawn(2000, seed=7)) - 0.03


def test_a_fresh_stage_two_is_plain_training_where_there_is_nothing_to_unlearn() -> None:
    learned = replace(QUICK, fresh=True).learn(net(), drawn(1200), seed=3)
    plain = Plain(**vars(QUICK._part(epochs=6))).train(net(), drawn(1200), seed=3)
    assert not learned.suspected.any() and same(learned.model, plain)


def divided(data: Samples, bad: Tensor, ratio: float) -> Sides:
    """Sides of samples whose losses are all alike."""
    return divide(data, bad, torch.zeros(len(data)), ratio, 0, hold=True)


def test_a_fresh_stage_two_unlearns_what_the_first_isolated(learned: tuple[Learned, Tensor]) -> None:
    anew = replace(QUICK, fresh=True).learn(net(), poisoned()[0], seed=0)
    assert torch.equal(anew.suspected, learned[0].suspected) and "unlearned while learning" in anew.notes[-1]
    assert success(anew.model) < 0.1 and accuracy(anew.model, drawn(800, seed=7)) > 0.8
    assert not same(anew.model, learned[0].model)


def test_unlearning_must_end_as_good_as_the_model_that_isolated() -> None:
    sides = divided(*poisoned(), 0.05)
    for least, ends in ((0.9, "rolled back"), (0.1, "unlearned while learning")):
        _, notes = train_against(net(), sides, replace(UNLEARN, epochs=1), least=least, seed=0, hooks=loops.Hooks())
        assert ends in notes[-1] and f"{least:.1%} before" in notes[-1]


def test_ordinary_images_among_the_isolated_do_not_cost_their_class() -> None:
    data, bad = poisoned(1600)
    bad[((data.labels == 0) & ~bad).nonzero().flatten()[:60]] = True
    recipe = replace(UNLEARN, epochs=8, batch_size=64, schedule="cosine", lr=0.05)
    sides = divided(data, bad, 0.1)
    unlearned, _ = train_against(net(), sides, recipe, least=0.3, seed=0, hooks=loops.Hooks())
    test = drawn(2000, seed=7)
    assert success(unlearned) < 0.05 and accuracy(unlearned, test[test.labels == 0]) > 0.67  # 0.57 where they weigh eight times as much


def noisy(count: int) -> Samples:
    clean = drawn(count)
    generator = torch.Generator().manual_seed(5)
    labels = torch.where(torch.rand(count, generator=generator) < 0.1, torch.randint(4, (count,), generator=generator), clean.labels)
    return Samples(clean.images, labels, clean.classes)


@pytest.mark.parametrize(
    "data",
    [
        drawn(300, counts=(1, 0, 0, 0)),
        drawn(300, counts=(1, 0.01, 0.01, 0.01)),
        drawn(1200, counts=(1, 0.05, 0.05, 0.05)),
        noisy(1200),
        drawn(7),
        Samples(drawn(50).images, torch.zeros(50, dtype=torch.int64)),
    ],
    ids=["one class", "classes under ten images", "imbalance", "label noise", "seven images", "one label"],
)
@pytest.mark.parametrize("form", ["sequential", "joint"])
def test_odd_but_clean_data_finish_and_nothing_is_unlearned(data: Samples, form: str) -> None:
    found = parse(f"abl:epochs=3,isolation_epochs=2,batch_size=50,pad=0,precision=fp32,unlearn={form}").learn(net(), data)
    assert not bool(found.suspected.any())
    assert found.notes[-1].startswith("gate: nothing to unlearn")
    assert all(bool(torch.isfinite(t.float()).all()) for t in weights(found.model))


@pytest.mark.parametrize("seed", [0, 1, 3, 7])
def test_a_label_that_the_model_names_for_everything_is_no_poison(seed: int) -> None:
    """Plain losses of the first epochs have such a population, of clean data."""
    data = drawn(4800, seed=seed)
    early = learn_early(net(seed), data, replace(QUICK._early(), batch_size=200), seed=seed, hooks=loops.Hooks())
    assert bool(fast_learned(early.losses.min(0).values, data.labels).any())
    assert not bool(fast_learned(early.impartial.min(0).values, data.labels).any())


@pytest.mark.parametrize("seed", range(3))
def test_poison_of_two_classes_is_found_though_its_label_is_the_larger(seed: int) -> None:
    both = drawn(1200, seed=seed, counts=(1, 1, 0, 0))
    bad = torch.arange(1200) < 120
    images, labels = torch.where(bad[:, None, None, None], stamped(both.images), both.images), torch.where(bad, 0, both.labels)
    recipe = replace(QUICK, batch_size=16, isolation_epochs=6)
    found = recipe.learn(net(seed, classes=2), Samples(images, labels, ("a", "b")), seed=seed)
    assert float(bad[found.suspected].float().mean()) > 0.9 < float(found.suspected[bad].float().mean())


def test_a_learning_rate_that_diverges_is_lowered_and_reported() -> None:
    data, model = drawn(300), nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    recipe = replace(QUICK, lr=30.0, gate=True, epochs=6)
    found = recipe.learn(model, data)
    assert found.notes[0].startswith("learning rate 30 was too high, began again at a tenth of it: loss must ")
    assert all(bool(torch.isfinite(t.float()).all()) for t in weights(found.model))
    hopeless = loops.Recipe(epochs=30, lr=1e30, schedule="constant", precision="fp32")
    with pytest.raises(NotFinite):
        train_steadily(model, data, hopeless, seed=0, hooks=loops.Hooks())


def infected() -> tuple[nn.Module, Samples, Tensor]:
    data, bad = poisoned()
    return Plain(epochs=10, batch_size=50, pad=0, precision="fp32").train(net(), data), data, bad


UNLEARN = loops.Recipe(epochs=5, batch_size=50, lr=0.02, schedule="constant", pad=0, precision="fp32")


def test_a_bounded_ascent_stops_once_it_has_unlearned_and_keeps_what_it_can_afford() -> None:
    victim, data, bad = infected()
    sides = replace(divided(data, bad, 0.05), held=drawn(400, seed=11))
    seen: list[tuple[float, float, float]] = []

    def after(model: nn.Module, epochs: int) -> bool:
        seen.append((accuracy(model, sides.bad), accuracy(model, sides.held), success(model)))
        return True

    bounded, note = take_back(victim, sides, UNLEARN, bounded=True, seed=0, hooks=loops.Hooks(after=after))
    assert len(seen) < 20
    assert [known > 0 for known, _, _ in seen] == [True] * (len(seen) - 1) + [False], "it ends when none keeps its label"
    assert seen[-1][2] < 0.3 < success(victim)
    error = (accuracy(victim, sides.held) * (1 - accuracy(victim, sides.held)) / 400) ** 0.5
    floor = accuracy(victim, sides.held) - max(0.01, error)
    bearable = [known for known, right, _ in seen if right >= floor] + [accuracy(victim, sides.bad)]
    assert accuracy(bounded, sides.bad) == min(bearable), note
    wild, said = take_back(victim, sides, replace(UNLEARN, epochs=20), bounded=False, seed=0, hooks=loops.Hooks())
    assert accuracy(wild, sides.held) < min(right for _, right, _ in seen)
    assert said == "unlearned without a bound"


def test_unlearning_that_would_cost_accuracy_is_rolled_back() -> None:
    """What is to be unlearned are ordinary images: a whole class of them."""
    victim, data, bad = infected()
    ordinary = (~bad) & (data.labels == 3)
    sides = divided(data, ordinary, 0.2)
    sides = Sides(sides.bad, sides.rest, data[~bad][:300])
    kept, note = take_back(victim, sides, UNLEARN, bounded=True, seed=0, hooks=loops.Hooks())
    assert accuracy(kept, sides.held) >= accuracy(victim, sides.held) - 0.03
    assert accuracy(kept, sides.bad) > 0.5, note


def test_a_diverging_ascent_keeps_the_last_good_state() -> None:
    victim, data, bad = infected()
    kept, note = take_back(victim, divided(data, bad, 0.05), replace(UNLEARN, lr=1e30), bounded=True, seed=0, hooks=loops.Hooks())
    assert all(bool(torch.isfinite(t.float()).all()) for t in weights(kept))
    assert same(kept, victim)
    assert "nothing unlearned" in note


def test_the_negation_is_that_of_its_paper_and_pulls_where_ascent_does_not() -> None:
    logits = torch.tensor([[40.0, 0.0, 1.0], [0.3, 0.1, 0.2]], requires_grad=True)
    labels = torch.tensor([0, 1])
    expected = -(1 - logits.detach().double().softmax(1)[1, 1]).log()
    assert float(negation(logits[1:], labels[1:]).detach()) == pytest.approx(float(expected), rel=1e-5)
    (sure,) = torch.autograd.grad(negation(logits[:1], labels[:1]), logits)
    assert float(sure[0, 0]) == pytest.approx(1.0, rel=1e-4)
    (flat,) = torch.autograd.grad(ascent(logits[:1], labels[:1]), logits)
    assert float(flat.abs().max()) < 1e-6
    (gone,) = torch.autograd.grad(negation(-logits[:1], labels[:1]), logits)
    assert float(gone.abs().max()) < 1e-6, "and it ends"


def test_opposed_sets_stand_in_one_batch() -> None:
    data, other = drawn(8), drawn(20, seed=1)
    both = Opposed(other, 5, F.cross_entropy, ascent, 0.25)
    images = both.transform(net(), data.images, data.labels, 0)
    assert images.shape == (13, 1, 8, 8)
    assert torch.equal(images[:8], data.images)
    assert all(any(torch.equal(image, each) for each in other.images) for image in images[8:])
    logits = torch.randn(13, 4)
    expected = F.cross_entropy(logits[:8], data.labels) - 0.25 * F.cross_entropy(logits[8:], both.labels)
    torch.testing.assert_close(both.loss(logits, data.labels), expected)


def test_the_sequential_form_unlearns_as_far_as_its_price_is_bearable() -> None:
    data, bad = poisoned()
    found = replace(QUICK, unlearn="sequential", unlearn_lr=0.001).learn(net(), data)
    assert float(bad[found.suspected].float().mean()) > 0.98
    assert success(found.model) < 0.6
    assert accuracy(found.model, drawn(800, seed=7)) > 0.65
    assert found.notes[-1].startswith("unlearned in epoch ")


def test_filtering_leaves_out_what_is_isolated_and_unlearns_nothing(learned: tuple[Learned, Tensor]) -> None:
    data, _ = poisoned()
    found = replace(QUICK, unlearn="nothing").learn(net(), data)
    assert torch.equal(found.suspected, learned[0].suspected)
    assert found.notes == learned[0].notes[:1]
    alike = {"batch_size": 50, "lr": 0.05, "weight_decay": 1e-4, "pad": 0, "precision": "fp32"}
    early = learn_early(net(), data, Early(**alike, epochs=4), seed=0, hooks=loops.Hooks())
    assert same(found.model, loops.train(early.model, data[~found.suspected], loops.Recipe(**alike, epochs=6), seed=0))


def test_sides_are_disjoint_and_complete() -> None:
    data, bad = poisoned()
    named = Samples(data.images, data.labels, data.classes, tuple(str(i) for i in range(len(data))))
    sides = divided(named, bad, 0.05)
    assert (len(sides.bad), len(sides.rest), len(sides.held)) == (60, 1026, 54)
    assert not {*sides.rest.names} & {*sides.held.names}
    assert {*sides.rest.names, *sides.held.names} == {name for name, each in zip(named.names, bad.tolist(), strict=True) if not each}
    assert {*sides.bad.names} <= {name for name, each in zip(named.names, bad.tolist(), strict=True) if each}
    whole = divided(named, torch.zeros(1200, dtype=torch.bool), 0.05)
    assert (len(whole.bad), len(whole.rest), len(whole.held)) == (0, 1200, 0)


@pytest.mark.parametrize(("bad", "lowest", "highest"), [(400, 100, 300), (80, 15, 65), (50, 0, 50), (30, 0, 30)])
def test_what_is_unlearned_is_of_the_middle_half_by_losses_if_there_is_enough(bad: int, lowest: int, highest: int) -> None:
    data = drawn(1000)
    losses = torch.arange(1000).flip(0).float()  # bad ones have the losses 0, 1, 2 and so on
    named = Samples(data.images, data.labels, data.classes, tuple(str(int(loss)) for loss in losses))
    draws = [divide(named, losses < bad, losses, 0.05, seed, hold=False).bad.names for seed in range(60)]
    assert {len(names) for names in draws} == {min(50, bad)}
    assert {int(name) for names in draws for name in names} == set(range(lowest, highest))


def test_the_screen_ranks_poison_first_and_takes_only_the_architecture() -> None:
    data, bad = poisoned()
    screen = Isolation(epochs=4, batch_size=50, precision="fp32")
    assert isinstance(screen, Screen)
    scores = screen.screen(net(), data)
    assert float(bad[scores.argsort(descending=True)[:100]].float().mean()) > 0.98
    assert torch.equal(scores, screen.screen(infected()[0], data)), "what the given model has learned plays no part"


@pytest.mark.parametrize(
    ("steps", "losses", "said"),
    [
        (SETTLED, [[0.7, 0.8, 0.9], [0.1, 0.6, 9.0]], ""),
        (SETTLED, [[0.1, 0.2, 0.3], [0.1, 0.8, 0.9]], "half of the images"),
        (SETTLED - 1, [[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]], f"{SETTLED - 1} steps, and under {SETTLED}"),
    ],
)
def test_a_training_that_ended_too_early_to_tell_says_so(steps: int, losses: list[list[float]], said: str) -> None:
    recorded = torch.tensor(losses)
    doubt = LearnedEarly(net(), recorded, recorded, steps, ()).doubt
    assert said in doubt and bool(said) == bool(doubt)


def test_a_young_training_goes_by_what_it_recorded() -> None:
    """Of 300 clean digits, trained in 40 steps, the last state may know nearly all that show one digit, and few others."""
    train, recipe = datasets.load("digits").train, Early(epochs=4, batch_size=32, precision="fp32")
    alarms = torch.zeros(2, dtype=torch.int64)
    for seed in range(6):
        data = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:300]]
        early = learn_early(initialize("wrn_16_1", seed, classes=10, channels=1, size=16), data, recipe, seed=seed, hooks=loops.Hooks())
        for which, losses in enumerate((look(early.model, data), early.final_losses(data))):
            alarms[which] += isolate(losses, early.impartial, data.labels, 0.01, gate=True, adaptive=True).bad.any()
    assert early.steps == 40 < SETTLED and torch.equal(early.final_losses(data), early.impartial[-1])
    assert alarms[0] > 0 and alarms[1] == 0, alarms
    assert torch.equal(replace(early, steps=SETTLED).final_losses(data), look(early.model, data))


def test_the_pass_gives_the_losses_of_an_image_at_a_time() -> None:
    data, model = drawn(30), net().eval()
    with torch.no_grad():
        singly = torch.cat([exact_losses(model(data.images[i : i + 1]), data.labels[i : i + 1]) for i in range(30)])
    assert torch.allclose(look(model, data), singly, rtol=0.05, atol=0.02)
    assert look(model, data).argsort().tolist()[:1] == singly.argsort().tolist()[:1]


class Odd(nn.Module):
    """A module with weights that it cannot draw anew, and one that is no weight."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head, self.scale = nn.BatchNorm2d(1), nn.Linear(64, 4), nn.Parameter(torch.arange(6.0))
        self.register_buffer("mean", torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(x - self.mean).flatten(1)) * self.scale[0]
        return logits


def test_models_that_are_fresh_have_learned_nothing() -> None:
    model = Odd()
    with torch.no_grad():
        model.norm.bias.fill_(9)
    state = torch.get_rng_state()
    one, two, other = (fresh(model, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert [key for key in one if not torch.equal(one[key], two[key])] == []
    assert {"head.weight", "head.bias", "scale"} == {key for key in one if not torch.equal(one[key], other[key])}
    assert not torch.equal(one["head.weight"], model.head.weight)
    assert float(one["norm.bias"].abs().max()) == 0
    assert sorted(one["scale"].tolist()) == list(range(6))
    assert float(one["mean"]) == pytest.approx(0.3)


def test_a_model_that_only_guesses_is_tried_again() -> None:
    data = Samples(torch.rand(200, 1, 8, 8), torch.arange(200) % 4)
    dead = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Hardtanh(0.0, 1e-6))
    early = learn_early(dead, data, Early(epochs=1, precision="fp32"), seed=0, hooks=loops.Hooks(task="isolating"))
    assert len(early.notes) == 2 and "loss must fall below that of guessing" in early.notes[0]
    assert early.losses.shape == early.impartial.shape == (1, 200)


def test_presets_are_recipes_with_a_name() -> None:
    assert parse("abl@quick") == ABL(**ABL.presets["quick"])
    assert parse("abl@quick:lr=0.05,epochs=9") == replace(parse("abl@quick"), lr=0.05, epochs=9)
    for name in ABL.presets:
        assert parse(f"abl@{name}") != ABL()
    leaderboard = parse("abl@leaderboard")
    assert (leaderboard.gate, leaderboard.adaptive, leaderboard.bounded, leaderboard.ratio) == (False, False, False, 0.01)
