"""Other packages' attacks under our verb: equal to ours where they are the same, and fenced off from the model and the generators."""

from __future__ import annotations

import functools
import importlib
import random
import sys
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import mithridate.threats  # noqa: F401  fills the registry
from mithridate.errors import BadSpec, MissingExtra
from mithridate.roles import Goal
from mithridate.spec import REGISTRY, parse, to_spec
from mithridate.threats.attack import attack
from mithridate.threats.evasion.pgd import PGD
from mithridate.threats.searching.foreign import read_options

PACKAGES = ("foolbox", "torchattacks", "adv_lib", "art")
FIRST = {"foolbox": "foolbox", "torchattacks": "torchattacks", "adv_lib": "adv_lib.attacks", "art": "art.attacks.evasion"}
OURS = "eps=0.1,options="
SAME_PGD = {  # ten steps of a quarter of the radius, from the image itself
    "foolbox": "steps=10;abs_stepsize=0.025;random_start=false",
    "torchattacks": "steps=10;alpha=0.025;random_start=false",
    "adv_lib": "steps=10;absolute_step_size=0.025;random_init=false",
    "art": "max_iter=10;eps_step=0.025",
}
SAME_L2 = {
    "foolbox": "attack=L2PGD,eps=0.5,options=steps=10;abs_stepsize=0.125;random_start=false",
    "torchattacks": "attack=PGDL2,norm=l2,eps=0.5,options=steps=10;alpha=0.125;random_start=false",
    "art": "norm=l2,eps=0.5,options=max_iter=10;eps_step=0.125",
}
MANY = {
    "foolbox": {
        "LinfPGD": "steps=3", "L2PGD": "steps=3", "L1PGD": "steps=3", "FGSM": "", "L2FMNAttack": "steps=5", "LInfFMNAttack": "steps=5",
        "L2CarliniWagnerAttack": "steps=3;binary_search_steps=2", "DDNAttack": "steps=5", "EADAttack": "steps=3;binary_search_steps=2",
        "L2DeepFoolAttack": "steps=3", "LinfDeepFoolAttack": "steps=3", "MIFGSM": "steps=3", "AdamPGD": "steps=3",
        "BoundaryAttack": "steps=5", "SaltAndPepperNoiseAttack": "steps=20", "L2AdditiveGaussianNoiseAttack": "",
        "InversionAttack": "", "GaussianBlurAttack": "steps=5", "NewtonFoolAttack": "steps=3",
    },
    "torchattacks": {
        "PGD": "steps=3", "FGSM": "", "BIM": "steps=3", "MIFGSM": "steps=3", "DIFGSM": "steps=3", "TIFGSM": "steps=3", "APGD": "steps=3",
        "APGDT": "steps=3", "FAB": "steps=3", "Square": "n_queries=20", "CW": "steps=3", "PGDL2": "steps=3", "DeepFool": "steps=3",
        "JSMA": "gamma=0.05", "OnePixel": "steps=2;popsize=4", "AutoAttack": "", "VMIFGSM": "steps=2", "TPGD": "steps=3",
    },
    "adv_lib": {
        "pgd_linf": "steps=3", "apgd": "n_iter=3", "apgd_targeted": "n_iter=3", "fab": "n_iter=3", "fmn": "steps=3", "ddn": "steps=3",
        "df": "steps=3", "sdf": "steps=3", "tr": "iter=3", "pdgd": "num_steps=3", "pdpgd": "num_steps=3", "sigma_zero": "num_steps=3",
        "vfga": "max_iter=3", "fga": "max_iter=3", "alma": "num_steps=3", "carlini_wagner_linf": "max_iterations=3",
    },
    "art": {
        "ProjectedGradientDescent": "max_iter=3", "FastGradientMethod": "", "BasicIterativeMethod": "max_iter=3",
        "MomentumIterativeMethod": "max_iter=3", "AutoProjectedGradientDescent": "max_iter=3;nb_random_init=1",
        "AutoConjugateGradient": "max_iter=3;nb_random_init=1", "DeepFool": "max_iter=3;nb_grads=3", "SquareAttack": "max_iter=5",
        "CarliniL2Method": "max_iter=3;binary_search_steps=2", "ElasticNet": "max_iter=3;binary_search_steps=2",
        "HopSkipJump": "max_iter=2;init_eval=5;max_eval=10", "NewtonFool": "max_iter=3", "SaliencyMapMethod": "gamma=0.05",
        "SpatialTransformation": "max_translation=10;num_translations=2", "BoundaryAttack": "max_iter=3;num_trial=3",
    },
}  # fmt: skip


class Tiny(nn.Module):
    """A small convolutional net with a layer that behaves differently in training."""

    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2), nn.Flatten())
        self.head = nn.Linear(6 * side * side, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def installed(package: str) -> Any:
    """The adapter's module; the test is skipped where its package is not there."""
    module = importlib.import_module(f"mithridate.threats.evasion.{package}")
    try:
        module.available()
    except MissingExtra as missing:
        pytest.skip(str(missing))
    return module


@functools.cache
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """A trained model and 300 images it has not seen."""
    loaded = load_digits()
    images, labels = torch.from_numpy(loaded.images).float().div(16)[:, None], torch.from_numpy(loaded.target).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Tiny(1, 8, 10)
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(60):
            for rows in torch.randperm(1400).split(100):
                optimizer.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
                optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return model.eval(), images[1400:1700], labels[1400:1700]


@functools.cache
def small() -> tuple[Tiny, Tensor, Tensor]:
    """An untrained model in training mode, some of whose gradients and flags are the user's, and four color images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, images = Tiny(3, 16, 5), torch.rand(4, 3, 16, 16)
    model.head.bias.grad = torch.ones(5)
    model.head.bias.requires_grad_(False)
    with torch.no_grad():
        labels = model.eval()(images).argmax(1)
    return model.train(), images, labels


def robust(method: Any) -> float:
    model, images, labels = digits()
    return 1 - float(attack(method, model, images, labels).fooled.double().mean())


@pytest.mark.parametrize("package", SAME_PGD)
def test_pgd_of_each_package_equals_ours(package: str) -> None:
    installed(package)
    ours = robust(PGD(eps=0.1, step=0.025, steps=10, random_start=False))
    assert 0.05 < ours < 0.9
    assert robust(parse(f"{package}:{OURS}{SAME_PGD[package]}")) == pytest.approx(ours, abs=0.01)


@pytest.mark.parametrize("package", SAME_L2)
def test_l2_pgd_of_each_package_equals_ours(package: str) -> None:
    installed(package)
    ours = robust(PGD(norm="l2", eps=0.5, step=0.125, steps=10, random_start=False))
    assert 0.05 < ours < 0.9
    assert robust(parse(f"{package}:{SAME_L2[package]}")) == pytest.approx(ours, abs=0.01)


def generators() -> list[Any]:
    """The state of every global generator."""
    return [torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()]  # noqa: NPY002


@pytest.mark.parametrize(("package", "name"), [(package, name) for package in MANY for name in MANY[package]])
def test_many_attacks_run_inside_the_fence(package: str, name: str) -> None:
    assert name in installed(package).available()
    model, images, labels = small()
    given, before = images.clone(), {key: value.clone() for key, value in model.state_dict().items()}
    method = parse(f"{package}:attack={name},{OURS}{MANY[package][name]}")
    states = generators()
    made = attack(method, model, images, labels, seed=1)
    assert generators() == states, "global generators"
    assert made.images.shape == images.shape and made.images.dtype == images.dtype
    assert 0 <= float(made.images.min()) <= float(made.images.max()) <= 1
    reach = {1: (made.images - images).abs().sum((1, 2, 3)), 2: made.l2}.get(method.exponent(), made.linf)
    assert float(reach.max()) <= 0.1 + 1e-6
    assert made.forwards > 0, "the attack asked the model"
    assert torch.equal(images, given)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert [n for n, p in model.named_parameters() if p.grad is not None] == ["head.bias"]
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["head.bias"]
    assert torch.equal(made.images, attack(method, model, images, labels, seed=1).images), "same seed, same images"


@pytest.mark.parametrize("package", PACKAGES)
def test_targets_are_reached(package: str) -> None:
    installed(package)
    model, images, labels = digits()
    method = parse(f"{package}:eps=0.3,options={SAME_PGD[package].replace('0.025', '0.1')}")
    for goal in (Goal(3), Goal((labels + 1) % 10)):
        made = attack(method, model, images, labels, goal)
        assert float(made.fooled.double().mean()) > 0.6
        assert float(made.linf.max()) <= 0.3 + 1e-6


@pytest.mark.parametrize(
    ("spec", "goal"),
    [("foolbox:attack=FGSM", 1), ("foolbox:attack=GenAttack", None), ("torchattacks:attack=DeepFool", 1), ("art:attack=DeepFool", 1),
     ("adv_lib:attack=apgd_targeted", 1)],
)  # fmt: skip
def test_goals_an_attack_cannot_pursue_are_refused(spec: str, goal: int | None) -> None:
    installed(spec.partition(":")[0])
    model, images, labels = small()
    with pytest.raises(ValueError, match=r"goal must be .* for '"):
        parse(spec).perturb(model, images, labels, Goal(goal))


@pytest.mark.parametrize(
    ("spec", "said"),
    [("foolbox:attack=LinfPDG", "foolbox attack 'LinfPDG' is unknown; did you mean: .*LinfPGD"),
     ("torchattacks:attack=PDG", "torchattacks attack 'PDG' is unknown; did you mean: .*PGD"),
     ("adv_lib:attack=pgd_lif", "adv_lib attack 'pgd_lif' is unknown; did you mean: .*pgd_linf"),
     ("art:attack=ProjectedGradientDecent", "art attack 'ProjectedGradientDecent' is unknown; did you mean: .*ProjectedGradientDescent"),
     ("art:attack=AdversarialPatchPyTorch", "art attack 'AdversarialPatchPyTorch' is unknown"),
     ("foolbox:options=step=3", "LinfPGD: option 'step' is unknown; did you mean: steps"),
     ("torchattacks:options=step=3", "PGD: option 'step' is unknown; did you mean: steps"),
     ("adv_lib:options=stepz=3", "pgd_linf: option 'stepz' is unknown; did you mean: steps"),
     ("art:options=max_ter=3", "ProjectedGradientDescent: option 'max_ter' is unknown; did you mean: max_iter"),
     ("adv_lib:eps=none", "pgd_linf: missing a required argument: 'ε'"),
     ("foolbox:eps=none", "eps must be given for 'LinfPGD', which has a fixed radius, got None"),
     ("foolbox:attack=L0FMNAttack", "eps must be none for 'L0FMNAttack', whose changes have no ball, got 0.03"),
     ("foolbox:attack=SpatialAttack", "eps must be none for 'SpatialAttack'")],
)  # fmt: skip
def test_what_a_package_does_not_have_is_named(spec: str, said: str) -> None:
    installed(spec.partition(":")[0])
    model, images, labels = small()
    with pytest.raises(ValueError, match=said):
        parse(spec).perturb(model, images, labels)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_that_is_not_there_is_named_with_its_cure(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, FIRST[package], None)
    model, images, labels = small()
    cure = "--no-deps" if package in ("torchattacks", "adv_lib") else r"'mithridate\[interop\]'"
    with pytest.raises(MissingExtra, match=f"is not installed: pip install {cure}"):
        parse(package).perturb(model, images, labels)


@pytest.mark.parametrize("package", PACKAGES)
def test_fields_that_make_no_sense_are_refused(package: str) -> None:
    for text, said in (("eps=0", "eps must be positive"), ("batch_size=0", "batch_size must be at least 1"), ("norm=l7", "l7")):
        with pytest.raises(BadSpec, match=said):
            parse(f"{package}:{text}")
    with pytest.raises(BadSpec, match="options must be name=value;name=value, got 'steps'"):
        parse(f"{package}:options=steps")
    with pytest.raises(ValueError, match="norm must be 'linf' or 'l2', got 'l1'"):
        REGISTRY[package].method(norm="l1")
    method = parse(f"{package}:eps=none,options=steps=5;rate=0.1;on=true")
    assert parse(to_spec(method)) == method


def test_options_are_read_as_what_they_look_like() -> None:
    text = "steps=10; rate=0.1;tiny=1e-3;far=inf;on=true;off=False;nothing=none;loss=ce;"
    assert read_options(text) == {
        "steps": 10, "rate": 0.1, "tiny": 1e-3, "far": float("inf"), "on": True, "off": False, "nothing": None, "loss": "ce",
    }  # fmt: skip
    assert read_options("") == {}
    for bad in ("steps", "steps=", "=3"):
        with pytest.raises(ValueError, match="options must be name=value"):
            read_options(bad)


@pytest.mark.parametrize("package", PACKAGES)
def test_batches_are_bounded_and_every_float_type_comes_back(package: str) -> None:
    installed(package)
    model, images, labels = small()
    seen: list[int] = []
    handle = model.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    made = parse(f"{package}:batch_size=3,{OURS}{SAME_PGD[package]}").perturb(model, images, labels)
    handle.remove()
    assert made.shape == images.shape and max(seen) == 3
    wide = Tiny(3, 16, 5).double()
    assert parse(package).perturb(wide, images.double(), labels).dtype == torch.float64
