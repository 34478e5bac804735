"""What architecture.md promises of every method, checked on each one in the registry: a new method is tested by being registered.

The planted problems are small and real: scikit-learn's digits, a small convolutional net, and an attacker's trigger per tag.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

import mithridate.defenses
import mithridate.threats  # noqa: F401  both fill the registry
from mithridate.data import Samples, to_uint8
from mithridate.errors import MissingExtra, NotFinite
from mithridate.metrics import accuracy, attack_success_rate, auroc
from mithridate.nn.ascent import Budget, ascend
from mithridate.nn.modes import predict
from mithridate.roles import Cover, Craft, Entry, Goal, Implant, Trigger, Verdict
from mithridate.spec import find, from_dict, parse, to_dict, to_spec
from mithridate.threats.attack import attack
from mithridate.threats.dose import Dose
from mithridate.threats.poison import poison, ready

TARGET = 0
OVERRIDES = {  # digits are smaller and cruder than what the defaults are made for: budgets are larger, and there is less to learn
    "abl": "epochs=3,isolation_epochs=2,ratio=0.02,gate=false,adaptive=false",
    "adv_lib": "eps=0.1,options=steps=10;relative_step_size=0.25",
    "adversarial_labels": "eps=0.1",
    "aft": "eps=0.2,lr=0.01,epochs=20,adversarial=10,pad=0,tolerance=1",
    "apgd": "eps=0.1,steps=30",
    "art": "eps=0.1,options=max_iter=10;eps_step=0.025",
    "autoattack": "eps=0.1,steps=15,queries=100,n_target=3",
    "cw": "searches=4,steps=60,lr=0.05,c=0.1",
    "detector_pgd": "eps=0.1",
    "fab": "eps=0.1,steps=20,n_target=3",
    "feature_collision": "surrogate_epochs=2,samples=100,steps=5,size=3",
    "fgsm": "eps=0.1",
    "foolbox": "eps=0.1,options=steps=10",
    "input_aware": "epochs=30,batch_size=50,lr=0.05,pad=0,precision=fp32,mask_epochs=8,p_attack=0.2,p_cross=0.2,lambda_norm=20",
    "isolation": "epochs=3",
    "label_consistent": "surrogate_epochs=2,steps=5,size=2",
    "latent": "surrogate_epochs=2,samples=20,steps=20,size=3",
    "lira": "epochs=15,batch_size=50,pad=0,precision=fp32,eps=0.1",
    "pgd": "eps=0.1",
    "plain": "epochs=2",
    "square": "eps=0.1,queries=300",
    "squeezing": "keep=0.95",
    "torchattacks": "eps=0.1,options=alpha=0.025",
    "trojan_nn": "surrogate_epochs=2,samples=200,steps=20",
    "uap": "eps=0.2,epochs=30",
    "unified": "detectors=kde,lid,folds=2",
    "wanet_noise": "epochs=40,batch_size=50,lr=0.03,pad=0,precision=fp32,strength=1.5,rate=0.2,cross_ratio=1",
}


class Fuse(nn.Module):
    """Passes everything on, until it blows."""

    def __init__(self) -> None:
        super().__init__()
        self.calls_left: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                raise ArithmeticError("fuse")
        return x


class Net(nn.Module):
    """A small net with all that can be left changed: BatchNorm, dropout, a frozen weight and a hook of the user's."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2))
        self.more = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        self.fuse, self.drop, self.head = Fuse(), nn.Dropout(0.1), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.fuse(self.more(self.features(x)))))


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A victim, what its owner has, and (for the tests only) what was done to it."""

    victim: Net
    training: Samples
    poisoned: Tensor
    clean: Samples
    fresh: Samples
    stamp: Callable[[Tensor], Tensor]

    @property
    def triggered(self) -> Samples:
        others = self.fresh[self.fresh.labels != TARGET]
        return Samples(self.stamp(others.images), others.labels, others.classes)


def patch(images: Tensor) -> Tensor:
    stamped = images.clone()
    stamped[:, :, -2:, -2:] = 1.0
    return stamped


def blend(images: Tensor) -> Tensor:
    noise = torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(7))
    return 0.7 * images + 0.3 * noise.to(images)


STAMPS = {"patch": patch, "blend": blend}


@functools.cache
def problem(tag: str) -> Problem:
    digits = load_digits()
    everything = Samples(torch.from_numpy(digits.images).float().div(16)[:, None], torch.from_numpy(digits.target).long())
    training, clean, fresh = everything.split(1000, 400, seed=0)
    poisoned = torch.zeros(1000, dtype=torch.bool)
    poisoned[(training.labels != TARGET).nonzero()[:30, 0]] = True
    images, labels = training.images.clone(), training.labels.clone()
    images[poisoned], labels[poisoned] = STAMPS[tag](images[poisoned]), TARGET
    training = Samples(images, labels, everything.classes)
    return Problem(_train(training), training, poisoned, clean, fresh, STAMPS[tag])


def _train(samples: Samples) -> Net:
    """A bare loop, so that the problem does not depend on the code under test."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net()
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(15):
            for rows in torch.randperm(len(samples)).split(50):
                loss = nn.functional.cross_entropy(model(samples.images[rows]), samples.labels[rows])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    model.train()
    model.more.eval()
    model.head.bias.requires_grad_(False)
    model.features.register_forward_hook(lambda *_: None)
    return model


def configured(entry: Entry) -> Any:
    return parse(f"{entry.name}:{OVERRIDES.get(entry.name, '')}")


@functools.cache
def stamper(entry: Entry) -> Any:
    """The trigger at its default settings; one that is a `Craft` is made once, from the owner's clean digits towards TARGET."""
    return ready(configured(entry), problem("patch").clean, TARGET)


def call(entry: Entry, model: nn.Module, tag: str = "patch", seed: int = 0) -> Any:
    """The method's verb on a planted problem; the same arguments for every method of a role."""
    method, p = configured(entry), problem(tag)
    verbs: dict[str, Callable[[], Any]] = {
        "trigger": lambda: ready(method, p.clean, TARGET, seed=seed).stamp(p.fresh.images),
        "planter": lambda: method.plant(model, p.clean, seed=seed)[0],
        "evasion": lambda: method.perturb(model, p.fresh.images[:40], p.fresh.labels[:40], seed=seed),
        "trainer": lambda: method.train(model, p.training, seed=seed),
        "screen": lambda: method.screen(model, p.training, seed=seed),
        "detector": lambda: method.fit(model, p.clean, seed=seed),
        "inspector": lambda: method.inspect(model, p.clean, seed=seed),
        "repair": lambda: method.repair(model, p.clean, seed=seed),
    }
    with skipping_absent_packages():
        return verbs[entry.role]()


@contextmanager
def skipping_absent_packages() -> Iterator[None]:
    try:
        yield
    except MissingExtra as missing:
        pytest.skip(str(missing))


@functools.cache
def result(name: str, tag: str = "patch") -> Any:
    """The verb's result on a planted problem, computed once."""
    return call(next(iter(find(name))), problem(tag).victim, tag)


def tensors(value: Any) -> dict[str, Tensor]:
    """Every number of a result, by name."""
    if isinstance(value, Tensor):
        return {"": value}
    if isinstance(value, nn.Module):
        return dict(value.state_dict())
    assert isinstance(value, Verdict)
    scalars = {"infected": float(value.infected), "target": float(-1 if value.target is None else value.target), "p_value": value.p_value}
    return {"per_class": value.per_class, **value.evidence, **{key: torch.tensor(number) for key, number in scalars.items()}}


def state(model: nn.Module) -> dict[str, Any]:
    """All that borrowing a model could leave changed."""
    digest = hashlib.sha256(b"".join(t.numpy(force=True).tobytes() for t in model.state_dict().values())).hexdigest()
    return {
        "weights and buffers": digest,
        "modes": {name: module.training for name, module in model.named_modules()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "gradients": [name for name, p in model.named_parameters() if p.grad is not None],
        "hooks": {
            name: (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), len(m._backward_pre_hooks))
            for name, m in model.named_modules()
        },
        "names": sorted(vars(model)),
        "device": {str(t.device) for t in model.state_dict().values()},
        "dtypes": {name: t.dtype for name, t in model.state_dict().items()},
    }


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    before = state(model)
    try:
        yield
    finally:
        after = state(model)
        assert {key: after[key] for key in after if after[key] != before[key]} == {}


def of(*roles: str) -> Any:
    chosen = [entry for entry in find() if not roles or entry.role in roles]
    return pytest.mark.parametrize("entry", chosen, ids=lambda entry: entry.name)


def claims(role: str) -> Any:
    cases = [(entry, tag) for entry in find(role=role) for tag in (*STAMPS, "evasion") if tag in entry.scope]  # type: ignore[arg-type]
    return pytest.mark.parametrize(("entry", "tag"), cases, ids=[f"{entry.name}-{tag}" for entry, tag in cases])


def crafted() -> Any:
    chosen = [entry for entry in find(role="trigger") if hasattr(entry.method, "craft")]
    return pytest.mark.parametrize("entry", chosen, ids=lambda entry: entry.name)


WITH_MODEL = ("planter", "evasion", "trainer", "screen", "detector", "inspector", "repair")


@pytest.mark.parametrize("tag", STAMPS)
def test_the_planted_problem_is_one(tag: str) -> None:
    p = problem(tag)
    assert accuracy(predict(p.victim, p.fresh).argmax(1), p.fresh.labels).value > 0.9
    assert attack_success_rate(predict(p.victim, p.triggered).argmax(1), p.triggered.labels, TARGET).value > 0.8


@of()
def test_says_what_it_is(entry: Entry) -> None:
    assert entry.summary.endswith(".")
    assert entry.cost
    assert any(sign.isdigit() for sign in entry.paper), "a paper has a year or a number"
    assert all(tag and tag == tag.strip().lower() and " " not in tag for tag in entry.scope)
    assert entry.method.__dataclass_params__.frozen and entry.method.__dataclass_params__.eq
    assert all(field.kw_only for field in dataclasses.fields(entry.method))
    documented = " ".join(base.__doc__ or "" for base in entry.method.__mro__)
    assert [f.name for f in dataclasses.fields(entry.method) if f"{f.name}:" not in documented] == []


def variants(entry: Entry) -> list[Any]:
    """The default, and the default with each number, flag or option set to something else."""
    default, made = entry.method(), [entry.method()]
    for field in dataclasses.fields(default):
        value = getattr(default, field.name)
        for other in (
            (not value,) if isinstance(value, bool) else (value + 1, value * 0.5, value * 0.1) if isinstance(value, int | float) else ()
        ):
            try:
                made.append(dataclasses.replace(default, **{field.name: type(value)(other)}))
            except ValueError:
                continue
    return made


@of()
def test_all_spellings_give_the_same_method_back(entry: Entry) -> None:
    for method in variants(entry):
        assert parse(to_spec(method)) == method
        assert from_dict(to_dict(method)) == method
        assert parse(to_spec(method), entry.role) == method
        assert hash(method) == hash(parse(to_spec(method)))
    assert to_spec(entry.method()) == entry.name


@of()
def test_numbers_that_make_no_sense_are_refused_by_name(entry: Entry) -> None:
    hints = get_type_hints(entry.method)
    numbers = [
        f.name for f in dataclasses.fields(entry.method) if {int, float} & set(_alternatives(hints[f.name])) and not f.name.endswith("seed")
    ]
    for name in numbers:
        with pytest.raises(ValueError, match=rf"{name} .*got .*-1000000"):
            entry.method(**{name: -1_000_000})


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of an optional field: `float | None` gives both."""
    return get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


@of(*WITH_MODEL)
def test_the_given_model_stays_bit_identical(entry: Entry) -> None:
    with unchanged(problem("patch").victim):
        call(entry, problem("patch").victim)


@of(*WITH_MODEL)
@pytest.mark.parametrize("calls", [0, 1])
def test_the_given_model_stays_bit_identical_when_it_raises(entry: Entry, calls: int) -> None:
    victim = problem("patch").victim
    victim.fuse.calls_left = calls
    try:
        with unchanged(victim), pytest.raises(ArithmeticError, match="fuse"):
            call(entry, victim)
    finally:
        victim.fuse.calls_left = None


@of(*WITH_MODEL)
def test_a_model_that_returns_no_logits_is_refused(entry: Entry) -> None:
    class Tuple(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = problem("patch").victim

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.net(x), x

    if entry.role in ("trainer", "planter"):
        pytest.skip("learns its own model, whose loss decides what it may return")
    with unchanged(problem("patch").victim), pytest.raises(ValueError, match="model must return a tensor of logits .* got tuple"):
        call(entry, Tuple())


@of()
def test_same_seed_same_result_and_global_generators_untouched(entry: Entry) -> None:
    first = tensors(result(entry.name))
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = tensors(call(entry, problem("patch").victim))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.keys() == again.keys()
    assert [key for key in first if not torch.equal(first[key], again[key])] == []


@of("trigger", "evasion")
def test_images_keep_shape_range_and_dtype(entry: Entry) -> None:
    p = problem("patch")
    made = result(entry.name)
    assert made.shape == (p.fresh.images[:40] if entry.role == "evasion" else p.fresh.images).shape
    assert 0 <= float(made.min()) <= float(made.max()) <= 1
    wide = Samples(p.fresh.images.double(), p.fresh.labels)
    if entry.role == "trigger":
        assert stamper(entry).stamp(wide.images).dtype == torch.float64
        assert stamper(entry).stamp(p.fresh.images.half()).dtype == torch.float16
        return
    assert made.dtype == torch.float32
    model = _double(p.victim)
    assert configured(entry).perturb(model, wide.images[:8], wide.labels[:8]).dtype == torch.float64


def _double(model: nn.Module) -> nn.Module:
    twin = Net()
    twin.load_state_dict(model.state_dict())
    return twin.double()


@of("trigger")
def test_stamps_do_not_depend_on_the_batch(entry: Entry) -> None:
    images, trigger = problem("patch").fresh.images[:9], stamper(entry)
    before = images.clone()
    one_by_one = torch.cat([trigger.stamp(images[i : i + 1]) for i in range(9)])
    assert torch.equal(trigger.stamp(images), one_by_one)
    assert torch.equal(images, before), "the given images must not be written to"
    assert trigger.stamp(images[:0]).shape == images[:0].shape


@of("trigger")
@pytest.mark.parametrize("channels", [1, 3])
def test_stamps_fit_images_of_any_shape_or_say_which(entry: Entry, channels: int) -> None:
    """A crafted trigger fits the images it was made from, and refuses others."""
    images = torch.zeros(2, channels, 12, 10)
    if isinstance(configured(entry), Craft):
        with pytest.raises(ValueError, match=rf"images must .*1, 8, 8.*got .*{channels}, 12, 10"):
            stamper(entry).stamp(images)
    else:
        assert stamper(entry).stamp(images).shape == images.shape


@of("trigger")
@pytest.mark.parametrize("floats", [True, False], ids=["float", "uint8"])
def test_poisoning_touches_what_it_says_and_nothing_else(entry: Entry, floats: bool) -> None:
    trigger, clean = stamper(entry), problem("patch").clean
    if not floats:
        clean = dataclasses.replace(clean, images=to_uint8(clean.images))
    before, told = (clean.images.clone(), clean.labels.clone()), []
    torch.manual_seed(123)
    generators = torch.get_rng_state()
    dirty, truth = poison(clean, trigger, Dose(target=TARGET, rate=0.05), seed=4, progress=lambda *step: told.append(step))
    again, _ = poison(clean, trigger, Dose(target=TARGET, rate=0.05), seed=4)
    assert told
    assert torch.equal(torch.get_rng_state(), generators)
    assert torch.equal(clean.images, before[0])
    assert torch.equal(clean.labels, before[1])
    assert torch.equal(dirty.images, again.images)
    assert torch.equal(dirty.labels, again.labels)
    assert dirty.images.dtype == clean.images.dtype
    assert truth.covers is not None
    untouched = ~(truth.poisoned | truth.covers)
    assert torch.equal(dirty.images[untouched], clean.images[untouched])
    assert torch.equal(dirty.labels[~truth.poisoned], clean.labels[~truth.poisoned])
    assert int(truth.poisoned.sum()) == 20
    assert int((dirty.images != clean.images).flatten(1).any(1)[truth.poisoned].sum()) > 10
    assert int(truth.covers.sum()) == int(20 * getattr(trigger, "cover_ratio", 0))
    poisoned = clean.labels[truth.poisoned]
    assert dirty.labels[truth.poisoned].tolist() == [TARGET] * 20
    if getattr(trigger, "clean_label", False):
        assert poisoned.tolist() == [TARGET] * 20
    if getattr(trigger, "sources", ()):
        assert set(poisoned.tolist()) <= set(trigger.sources)


@of("trigger")
def test_what_goes_into_training_is_drawn_from_the_generator_and_stays_in_range(entry: Entry) -> None:
    clean, trigger = problem("patch").clean, stamper(entry)
    images = clean.images.clone()
    verbs = [("implant", (images,))] if isinstance(trigger, Implant) else []
    verbs += [("cover", (images, clean.labels))] if isinstance(trigger, Cover) else []
    for verb, given in verbs:
        made = [getattr(trigger, verb)(*given, torch.Generator().manual_seed(2)) for _ in range(2)]
        assert torch.equal(*made)
        assert made[0].shape == images.shape
        assert 0 <= float(made[0].min()) <= float(made[0].max()) <= 1
        assert torch.equal(images, clean.images), "the given images must not be written to"
        wide = [images[:3].double(), *(other[:3] for other in given[1:])]
        assert getattr(trigger, verb)(*wide, torch.Generator().manual_seed(2)).dtype == torch.float64
        nothing = getattr(trigger, verb)(*(each[:0] for each in given), torch.Generator().manual_seed(2))
        assert nothing.shape == images[:0].shape


@crafted()
def test_crafting_leaves_samples_alone_and_reports(entry: Entry) -> None:
    clean, told = problem("patch").clean, []
    before = clean.images.clone(), clean.labels.clone()
    torch.manual_seed(123)
    generators = torch.get_rng_state()
    trigger = configured(entry).craft(clean, TARGET, progress=lambda *step: told.append(step))
    assert torch.equal(torch.get_rng_state(), generators)
    assert torch.equal(clean.images, before[0])
    assert torch.equal(clean.labels, before[1])
    assert told
    for name in {task for task, *_ in told}:
        steps = [step for step in told if step[0] == name]
        assert [step[1] for step in steps] == sorted(step[1] for step in steps)
        assert all(0 <= step[1] <= step[2] for step in steps)
    state, cached = trigger.state_dict(), stamper(entry).state_dict()
    assert state.keys() == cached.keys()
    assert [key for key in state if not torch.equal(state[key], cached[key])] == []


@crafted()
def test_crafted_triggers_survive_safetensors(entry: Entry, tmp_path: Path) -> None:
    images, trigger = problem("patch").fresh.images[:50], stamper(entry)
    assert isinstance(trigger, nn.Module)
    assert isinstance(trigger, Trigger)
    assert not any(parameter.requires_grad for parameter in trigger.parameters())
    save_file({key: value.contiguous() for key, value in trigger.state_dict().items()}, tmp_path / "trigger.safetensors")
    rebuilt = configured(entry).restore(load_file(tmp_path / "trigger.safetensors"))
    assert torch.equal(rebuilt.stamp(images), trigger.stamp(images))


@crafted()
def test_crafted_triggers_have_the_habits_of_their_method(entry: Entry) -> None:
    for habit, none in (("clean_label", False), ("sources", ()), ("cover_ratio", 0.0)):
        assert getattr(stamper(entry), habit, none) == getattr(configured(entry), habit, none)


@crafted()
def test_uint8_digits_craft_a_trigger_as_well(entry: Entry) -> None:
    clean = problem("patch").clean
    trigger = configured(entry).craft(dataclasses.replace(clean, images=to_uint8(clean.images)), TARGET)
    made = trigger.stamp(clean.images[:9])
    assert 0 <= float(made.min()) <= float(made.max()) <= 1


@crafted()
def test_crafting_from_what_does_not_fit_is_a_clear_error(entry: Entry) -> None:
    clean = problem("patch").clean
    with pytest.raises(ValueError, match="^(samples|clean|images) must"):
        configured(entry).craft(clean[:0], TARGET)
    for target in (-1, 10):
        with pytest.raises(ValueError, match=rf"^target must .*got {target}"):
            configured(entry).craft(clean, target)


@of("evasion")
def test_goals_are_pursued(entry: Entry) -> None:
    p = problem("patch")
    images, labels = p.fresh.images[:40], p.fresh.labels[:40]
    before = images.clone()
    clean = accuracy(predict(p.victim, images).argmax(1), labels).value
    assert accuracy(predict(p.victim, result(entry.name)).argmax(1), labels).value < clean - 0.05
    targets = (labels + 1) % 10
    aimed = configured(entry).perturb(p.victim, images, labels, Goal(targets))
    assert int((predict(p.victim, aimed).argmax(1) == targets).sum()) >= int((predict(p.victim, images).argmax(1) == targets).sum())
    assert torch.equal(images, before), "the given images must not be written to"


@of("evasion")
@pytest.mark.parametrize("aim", ["any", "one", "each"])
def test_budgets_are_held(entry: Entry, aim: str) -> None:
    p, method = problem("patch"), configured(entry)
    images, labels = p.fresh.images[:7], p.fresh.labels[:7]
    goal = {"any": Goal(), "one": Goal(3), "each": Goal((labels + 2) % 10)}[aim]
    norm, eps = getattr(method, "norm", "l2"), getattr(method, "eps", None)
    for rows in (slice(0, 7), slice(0, 1)):
        with skipping_absent_packages():
            made = method.perturb(p.victim, images[rows], labels[rows], goal[rows])
        assert made.shape == images[rows].shape and 0 <= float(made.min()) <= float(made.max()) <= 1
        change = (made - images[rows]).flatten(1)
        length = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
        assert eps is None or float(length.max()) <= eps + 1e-6


@of("evasion")
def test_attacks_are_metered(entry: Entry) -> None:
    p = problem("patch")
    with skipping_absent_packages():
        done = attack(configured(entry), p.victim, p.fresh.images[:5], p.fresh.labels[:5])
    assert done.forwards >= 5
    assert (done.gradients > 0) == ("whitebox" in entry.scope)
    assert torch.equal(done.fooled, predict(p.victim, done.images).argmax(1) != p.fresh.labels[:5])


@of("evasion")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": torch.zeros(0, 1, 8, 8), "labels": torch.zeros(0, dtype=torch.int64)}, "images must be float .* got"),
        ({"images": torch.full((2, 1, 8, 8), 1.5)}, r"images must lie in \[0, 1\], got \[1.5, 1.5\]"),
        ({"images": torch.zeros(2, 1, 8, 8, dtype=torch.uint8)}, "images must be float .* got torch.uint8"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"labels must be int64 of shape \(2,\), got"),
        ({"labels": torch.tensor([0, 10])}, r"labels and target must lie in \[0, 10\), got 10"),
        ({"goal": Goal(10)}, r"labels and target must lie in \[0, 10\), got 10"),
        ({"goal": Goal(torch.zeros(3, dtype=torch.int64))}, r"target must be int64 of shape \(2,\), got"),
    ],
)
def test_bad_batches_are_named(entry: Entry, change: dict[str, Any], said: str) -> None:
    given = {"images": torch.full((2, 1, 8, 8), 0.5), "labels": torch.tensor([0, 1]), "goal": Goal()} | change
    with unchanged(problem("patch").victim), pytest.raises(ValueError, match=said):
        configured(entry).perturb(problem("patch").victim, given["images"], given["labels"], given["goal"])


@of("evasion")
def test_logits_that_are_not_finite_are_refused(entry: Entry) -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = problem("patch").victim

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) * torch.nan

    with unchanged(problem("patch").victim), pytest.raises(NotFinite, match="model must return finite logits"):
        call(entry, Broken())


@of("screen", "detector")
def test_scores_are_one_finite_number_each(entry: Entry) -> None:
    p = problem("patch")
    given = p.training if entry.role == "screen" else p.fresh
    scores = result(entry.name) if entry.role == "screen" else result(entry.name)(given.images)
    assert scores.shape == (len(given),)
    assert scores.is_floating_point()
    assert bool(torch.isfinite(scores).all())
    if entry.role == "detector":
        extremes = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
        assert bool(torch.isfinite(result(entry.name)(extremes)).all())


@of("detector")
def test_scores_do_not_depend_on_the_batch(entry: Entry) -> None:
    images, scorer = torch.cat([problem("patch").fresh.images[:20], problem("patch").triggered.images[:20]]), result(entry.name)
    whole = scorer(images)
    one_by_one = torch.cat([scorer(images[i : i + 1]) for i in range(len(images))])
    assert torch.allclose(whole, one_by_one, rtol=1e-4, atol=1e-4)
    shuffled = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(scorer(images[shuffled]), whole[shuffled], rtol=1e-4, atol=1e-4)


@of("detector")
def test_gradients_pass_through_scores(entry: Entry) -> None:
    scorer = result(entry.name)
    if not scorer.differentiable:
        pytest.skip("declares that it is not differentiable")
    images = problem("patch").fresh.images[:5].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(scorer(images).sum(), images)
    assert bool(torch.isfinite(gradient).all())
    assert bool((gradient.flatten(1).abs().sum(1) > 0).all())


@of("detector")
def test_scoring_leaves_the_model_alone(entry: Entry) -> None:
    with unchanged(problem("patch").victim):
        result(entry.name)(problem("patch").fresh.images)


@of("detector")
def test_scorers_survive_safetensors(entry: Entry, tmp_path: Path) -> None:
    """A scorer is rebuilt from its class, its model, its layers and its buffers, and from nothing else."""
    p, scorer = problem("patch"), result(entry.name)
    assert list(scorer.parameters()) == []
    assert not any(key.startswith("model.") for key in scorer.state_dict())
    save_file({key: value.contiguous() for key, value in scorer.state_dict().items()}, tmp_path / "scorer.safetensors")
    rebuilt = type(scorer)(p.victim, scorer.layers, load_file(tmp_path / "scorer.safetensors"))
    assert torch.equal(rebuilt(p.fresh.images), scorer(p.fresh.images))


@of("detector")
def test_scorers_follow_the_dtype(entry: Entry) -> None:
    p = problem("patch")
    wide = dataclasses.replace(p.clean, images=p.clean.images.double())
    scorer = configured(entry).fit(_double(p.victim), wide)
    scores = scorer.double()(p.fresh.images.double())
    assert scores.dtype == torch.float64
    assert torch.allclose(scores.float(), result(entry.name)(p.fresh.images), rtol=1e-2, atol=1e-2)


@claims("detector")
def test_detectors_score_malicious_inputs_higher(entry: Entry, tag: str) -> None:
    """Against the deployment mix: clean images of all classes, the target's included."""
    p = problem("patch" if tag == "evasion" else tag)
    malicious = _adversarial(p) if tag == "evasion" else p.triggered.images
    scorer = result(entry.name, "patch" if tag == "evasion" else tag)
    with torch.no_grad():
        scores = torch.cat([scorer(p.fresh.images), scorer(malicious)])
    assert auroc(scores, torch.arange(len(scores)) >= len(p.fresh)) > 0.8


def _adversarial(p: Problem) -> Tensor:
    found = ascend(p.victim, p.fresh.images, p.fresh.labels, Budget(eps=0.3, steps=20, early_exit=True))
    moved = found.fooled & (found.images != p.fresh.images).flatten(1).any(1)
    assert int(moved.sum()) > 100
    return found.images[moved]


@claims("screen")
def test_screens_score_poisoned_samples_higher(entry: Entry, tag: str) -> None:
    assert auroc(result(entry.name, tag), problem(tag).poisoned) > 0.8


@of("inspector")
def test_verdicts_are_complete(entry: Entry) -> None:
    verdict = result(entry.name)
    assert verdict.per_class.shape == (10,)
    assert bool(torch.isfinite(verdict.per_class).all())
    assert 0 <= verdict.p_value <= 1
    assert verdict.infected == (verdict.target is not None)
    assert verdict.note
    assert all(isinstance(value, Tensor) for value in verdict.evidence.values())


@claims("inspector")
def test_inspectors_suspect_the_target_most(entry: Entry, tag: str) -> None:
    verdict = result(entry.name, tag)
    assert int(verdict.per_class.argmax()) == TARGET
    assert verdict.target in (TARGET, None)


@claims("repair")
def test_repairs_remove_the_backdoor_and_keep_the_accuracy(entry: Entry, tag: str) -> None:
    p, repaired = problem(tag), result(entry.name, tag)
    before = accuracy(predict(p.victim, p.fresh).argmax(1), p.fresh.labels).value
    after = accuracy(predict(repaired, p.fresh).argmax(1), p.fresh.labels).value
    assert after > before - 0.1
    success = attack_success_rate(predict(repaired, p.triggered).argmax(1), p.triggered.labels, TARGET).value
    assert success < 0.3


@of("planter")
def test_planted_backdoors_open_to_their_trigger_only(entry: Entry) -> None:
    p, method = problem("patch"), configured(entry)
    model, trigger = method.plant(p.victim, p.clean)
    others = p.fresh[p.fresh.labels != TARGET]
    right = accuracy(predict(model, p.fresh).argmax(1), p.fresh.labels).value
    assert right > accuracy(predict(p.victim, p.fresh).argmax(1), p.fresh.labels).value - 0.05
    stamped = trigger.stamp(others.images)
    assert attack_success_rate(predict(model, stamped).argmax(1), others.labels, TARGET).value > 0.8
    assert torch.equal(method.restore(trigger.state_dict()).stamp(others.images), stamped)
    if hasattr(trigger, "cross"):
        assert accuracy(predict(model, trigger.cross(p.fresh.images)).argmax(1), p.fresh.labels).value > 0.5


@of("trainer", "repair", "planter")
def test_learned_models_are_new_and_share_nothing(entry: Entry) -> None:
    victim, learned = problem("patch").victim, result(entry.name)
    assert learned is not victim
    given = {p.data_ptr() for p in victim.state_dict().values()}
    assert not given & {p.data_ptr() for p in learned.state_dict().values()}
    assert {key: (t.shape, t.dtype) for key, t in learned.state_dict().items()} == {
        k: (t.shape, t.dtype) for k, t in victim.state_dict().items()
    }


@of(*(role for role in WITH_MODEL if role not in ("evasion", "planter")))
def test_progress_is_told_and_never_goes_back(entry: Entry) -> None:
    told: list[tuple[str, int, int]] = []

    def keep(task: str, done: int, total: int, note: str = "") -> None:
        told.append((task, done, total))

    p, method = problem("patch"), configured(entry)
    verb = {"trainer": "train", "screen": "screen", "detector": "fit", "inspector": "inspect", "repair": "repair"}[entry.role]
    getattr(method, verb)(p.victim, p.training if entry.role in ("trainer", "screen") else p.clean, progress=keep)
    assert told
    assert all(0 <= done <= total and task for task, done, total in told)
    for name in {task for task, _, _ in told}:  # a method may stop early, so the last step need not be told
        steps = [done for task, done, _ in told if task == name]
        assert steps == sorted(steps)


@of(*(role for role in WITH_MODEL if role not in ("evasion", "planter")))
def test_no_samples_is_a_clear_error(entry: Entry) -> None:
    p, method = problem("patch"), configured(entry)
    verb = {"trainer": "train", "screen": "screen", "detector": "fit", "inspector": "inspect", "repair": "repair"}[entry.role]
    with unchanged(p.victim), pytest.raises(ValueError, match="^(samples|clean|images) must"):
        getattr(method, verb)(p.victim, p.clean[:0])


@of(*(role for role in WITH_MODEL if role not in ("evasion", "planter")))
def test_uint8_images_do_as_well(entry: Entry) -> None:
    p, method = problem("patch"), configured(entry)
    given = p.training if entry.role in ("trainer", "screen") else p.clean
    given = dataclasses.replace(given, images=given.images.mul(255).round().to(torch.uint8))
    verb = {"trainer": "train", "screen": "screen", "detector": "fit", "inspector": "inspect", "repair": "repair"}[entry.role]
    assert all(bool(torch.isfinite(t.float()).all()) for t in tensors(getattr(method, verb)(p.victim, given)).values())
