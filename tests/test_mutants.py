"""Each operator changes what it says and nothing else, and many mutants at once answer as copies of the model would."""

from __future__ import annotations

import copy
import math
from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mithridate.analysis.sensitivity import Mutants
from mithridate.nn.modes import evaluating
from mithridate.nn.mutants import OPERATORS, level_for, mutate, stack, strongest
from mithridate.nn.suffix import Suffix, suffix_taps
from mithridate.nn.taps import trace


def weights() -> dict[str, Tensor]:
    """A convolution without a bias before a linear layer with one, so that a bias taken for the wrong layer's shows."""
    draw = torch.Generator().manual_seed(0)
    shapes = {"a.weight": (12, 3, 3, 3), "b.weight": (20, 40), "b.bias": (20,), "c.weight": (5, 20), "c.bias": (5,)}
    return {name: torch.randn(shape, generator=draw) * (3 if name[0] == "b" else 0.5) for name, shape in shapes.items()}


@pytest.mark.parametrize("operator", OPERATORS)
def test_mutants_are_their_seed(operator: str) -> None:
    given = weights()
    before = {name: weight.clone() for name, weight in given.items()}
    first, again, other = (mutate(operator, given, 0.5, seed) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in given)
    assert any(not torch.equal(first[name], other[name]) for name in given)
    assert all(torch.equal(given[name], before[name]) for name in given), "the given weights must not be written to"
    assert all(torch.equal(given[name], same) for name, same in mutate(operator, given, 0.0, 3).items())
    wide = mutate(operator, {name: weight.double() for name, weight in given.items()}, 0.5, 3)
    assert all(wide[name].dtype == torch.float64 and torch.allclose(wide[name].float(), first[name], atol=1e-5) for name in given)
    many = stack(operator, given, 0.5, [3, 4])
    assert all(torch.equal(many[name], torch.stack([first[name], other[name]])) for name in given)


def test_fuzzing_adds_noise_in_units_of_each_layers_spread() -> None:
    given = {"a.weight": 0.1 * torch.randn(300, 200, generator=torch.Generator().manual_seed(1)) + 5, "a.bias": torch.ones(300)}
    noise = mutate("fuzz", given, 2.0, 0)["a.weight"] - given["a.weight"]
    assert float(noise.std()) == pytest.approx(2 * float(given["a.weight"].std()), rel=0.02)
    assert abs(float(noise.mean())) < 0.01
    made = mutate("fuzz", weights(), 2.0, 0)
    assert [name for name, weight in weights().items() if torch.equal(made[name], weight)] == ["b.bias", "c.bias"]


@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_gaussian_fuzzing_replaces_a_share_of_all_numbers(share: float) -> None:
    given = weights()
    made = mutate("gf", given, share, 0)
    changed = sum(int((made[name] != given[name]).sum()) for name in given)
    assert changed == math.floor(share * sum(w.numel() for w in given.values()))
    if share == 1:
        assert float(made["b.weight"].std()) == pytest.approx(float(given["b.weight"].std()), rel=0.1)
        assert float(torch.corrcoef(torch.stack([made["b.weight"].flatten(), given["b.weight"].flatten()]))[0, 1]) < 0.15


@pytest.mark.parametrize("share", [0.1, 0.6, 1.0])
def test_weight_shuffling_permutes_inside_a_share_of_all_neurons(share: float) -> None:
    given = weights()
    made = mutate("ws", given, share, 0)
    changed = 0
    for name in ("a.weight", "b.weight", "c.weight"):
        before, after = given[name].flatten(1), made[name].flatten(1)
        assert torch.equal(before.sort(1).values, after.sort(1).values)
        changed += int((before != after).any(1).sum())
    assert changed == math.floor(share * 37)
    assert torch.equal(made["b.bias"], given["b.bias"]) and torch.equal(made["c.bias"], given["c.bias"])


def test_neuron_switch_permutes_neurons_of_each_layer() -> None:
    """Of 12, 20 and 5 rows a share of 0.5 moves at most 6, 10 and 2, and 0.1 of 5 rows is one, which has nowhere to go."""
    given = weights()
    for share, most in ((0.5, (6, 10, 2)), (0.1, (2, 2, 1))):
        made = mutate("ns", given, share, 1)
        for name, limit in zip(("a.weight", "b.weight", "c.weight"), most, strict=True):
            before, after = given[name].flatten(1), made[name].flatten(1)
            source = (after[:, None] == before[None]).all(2)
            assert bool((source.sum(1) == 1).all()) and bool((source.sum(0) == 1).all())
            assert int((before != after).any(1).sum()) <= limit
        assert torch.equal(made["b.bias"], given["b.bias"])
    assert any(not torch.equal(mutate("ns", given, 0.5, seed)["c.weight"], given["c.weight"]) for seed in range(5))


def test_activation_inverse_flips_neurons_with_their_own_bias() -> None:
    given = weights()
    made = mutate("nai", given, 0.5, 0)
    flipped = {name: (made[name].flatten(1) == -given[name].flatten(1)).all(1) for name in ("a.weight", "b.weight", "c.weight")}
    assert sum(int(rows.sum()) for rows in flipped.values()) == 18
    for name, rows in flipped.items():
        assert torch.equal(made[name][~rows], given[name][~rows])
        bias = name.replace("weight", "bias")
        if bias in given:
            assert torch.equal(made[bias], torch.where(rows, -given[bias], given[bias]))


def test_levels_are_found_by_bisection() -> None:
    assert level_for(lambda level: level / (1 + level), 0.8, "fuzz") == pytest.approx(4, rel=0.1)
    assert level_for(lambda level: level**3, 0.3, "gf") == pytest.approx(0.3 ** (1 / 3), rel=0.05)
    assert level_for(lambda level: 0.1 * level, 0.5, "gf") == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="operator 'ns' must change labels at some level"):
        level_for(lambda level: 0.0, 0.3, "ns")


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="operator must be one of fuzz, gf, ws, ns, nai, got 'afr'"):
        mutate("afr", weights(), 0.1, 0)
    with pytest.raises(ValueError, match=r"level must lie in \[0, 1\] for ws, got 1.5"):
        mutate("ws", weights(), 1.5, 0)
    assert strongest("fuzz") == math.inf


class Row(nn.Sequential):
    """Everything in a row, as in Jin et al.'s network."""

    def __init__(self, *between: nn.Module) -> None:
        trunk = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        super().__init__(trunk, nn.Linear(36, 16), *(between or (nn.ReLU(inplace=True), nn.Dropout(0.5))), nn.Linear(16, 10))


class Odd(nn.Module):
    """Written as a function: `kind` says what no chain of modules can tell."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.conv, self.one, self.two = kind, nn.Conv2d(1, 4, 3), nn.Linear(144, 16), nn.Linear(16, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.one(F.relu(self.conv(x)).flatten(1))
        if self.kind == "function":
            return self.head(F.relu(self.two(hidden)))
        if self.kind == "in place":
            hidden = self.two(hidden)
            hidden.relu_()
            return self.head(hidden)
        if self.kind == "residual":
            return self.head(self.two(hidden) + hidden)
        if self.kind == "twice":
            return self.head(self.two(self.two(hidden)))
        if self.kind == "looks":
            return self.head(self.two(hidden)) + 0 * hidden.detach().mean().item()
        return self.head(self.two(hidden)) * 2  # the head's output is not the logits


def made(kind: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Row() if kind == "row" else Row(nn.BatchNorm1d(16), nn.Identity()) if kind == "norm" else Odd(kind)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean, module.running_var = torch.rand(module.num_features), 1 + torch.rand(module.num_features)
    return model.double()


def images(count: int = 6) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@torch.no_grad()
def naive(model: nn.Module, layers: tuple[str, ...], mutants: Mutants, given: Tensor) -> Tensor:
    """A copy of the model for each mutant."""
    answers = []
    for seed in mutants.seeds.tolist():
        twin = copy.deepcopy(model).eval()
        parameters = {name: p for name, p in twin.named_parameters() if name.rpartition(".")[0] in layers}
        for name, weight in mutate(mutants.operator, {n: p.detach() for n, p in parameters.items()}, mutants.level, seed).items():
            parameters[name].copy_(weight)
        answers.append(twin(given))
    return torch.stack(answers)


CASES = [  # kind, chosen layers, those mutated, run as a chain, run together
    ("row", (), ("1", "4"), True, True),
    ("row", ("4",), ("4",), True, True),
    ("row", ("1",), ("1",), True, True),
    ("row", ("0.0", "4"), ("0.0", "4"), True, False),
    ("norm", (), ("1", "4"), True, True),
    ("function", (), ("one", "two", "head"), False, True),
    ("function", ("conv",), ("conv",), False, False),
    ("in place", ("two", "head"), ("two", "head"), False, True),
    ("residual", (), ("one", "two", "head"), False, True),
    ("residual", ("head",), ("head",), True, True),
    ("twice", (), ("one", "two", "head"), False, True),
    ("looks", (), ("one", "two", "head"), False, False),
    ("scaled", (), ("one", "two", "head"), False, True),
]


@pytest.mark.parametrize(("kind", "chosen", "layers", "chain", "together"), CASES)
@pytest.mark.parametrize("operator", ["fuzz", "nai"])
def test_mutants_answer_as_copies_do(
    kind: str, chosen: tuple[str, ...], layers: tuple[str, ...], chain: bool, together: bool, operator: str
) -> None:
    model = made(kind)
    taps = suffix_taps(model, images(1), chosen)
    suffix = Suffix.of(model, taps)
    assert (suffix.module is not model) == chain
    seen = trace(model, images(), taps)
    mutants = Mutants(suffix, operator, 0.7, torch.tensor([5, 6, 7]), suffix.can_batch(suffix.given(seen)))
    assert mutants.together == together
    expected = naive(model, layers, mutants, images())
    with torch.no_grad():
        assert torch.allclose(mutants.logits(suffix.given(seen)), expected, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(expected[0], expected[1], rtol=1e-3)


def test_what_lies_before_the_mutated_layers_runs_once() -> None:
    for kind, runs in (("row", 1), ("function", 2)):  # the odd one has one pass more, for all mutants
        model, counted = made(kind), Counter[str]()
        taps = suffix_taps(model, images(1))
        conv = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
        handle = conv.register_forward_hook(lambda *_, counted=counted: counted.update(["conv"]))
        seen = trace(model, images(), taps)
        suffix = Suffix.of(model, taps)
        with torch.no_grad():
            Mutants(suffix, "fuzz", 1.0, torch.arange(50), together=True).logits(suffix.given(seen))
        handle.remove()
        assert counted["conv"] == runs


def test_running_mutants_leaves_the_model_alone() -> None:
    model = made("row")
    model[3].train()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    taps = suffix_taps(model, images(1))
    suffix = Suffix.of(model, taps)
    with torch.no_grad():
        Mutants(suffix, "fuzz", 1.0, torch.arange(3), together=True).logits(suffix.given(trace(model, images(), taps)))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with evaluating(model):
        assert bool(torch.isfinite(model(images())).all())


def test_default_layers_are_dense_and_see_one_vector_an_image() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.mix, self.head = nn.Conv2d(1, 8, 4, 4), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.mix(self.patch(x).flatten(2).transpose(1, 2)).mean(1))

    assert suffix_taps(Tokens(), torch.rand(1, 1, 8, 8)) == ("head@input@raw",)
    convolutional = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert suffix_taps(convolutional, torch.rand(1, 1, 8, 8)) == ("2@input@raw", "3", "4")
    assert suffix_taps(made("row"), images(1), ("4", "1")) == ("1@input@raw", "2", "3", "4@input")


def test_unsuitable_layers_are_named() -> None:
    with pytest.raises(ValueError, match="layers must name linear layers or convolutions that run, got 'oen'; close names: one"):
        suffix_taps(made("function"), images(1), ("oen",))
    with pytest.raises(ValueError, match="model must contain a linear or convolutional layer that runs"):
        suffix_taps(nn.Flatten(), images(1))
