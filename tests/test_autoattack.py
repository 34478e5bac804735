"""AutoAttack: what each part gets, what it leaves, and how the result is told."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from linear import problem, radii
from mithridate.roles import Goal
from mithridate.spec import parse
from mithridate.threats.attack import attack
from mithridate.threats.evasion.apgd import APGD
from mithridate.threats.evasion.autoattack import STANDARD, AutoAttack
from mithridate.threats.evasion.fab import FAB
from mithridate.threats.evasion.square import Square

QUICK: dict[str, Any] = {"steps": 20, "queries": 100, "n_target": 5}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("goal", ["untargeted", "one", "each"])
def test_tells_exactly_who_withstands(norm: Any, goal: str) -> None:
    """On a linear model robustness is known image by image."""
    model, images, labels = problem((3, 12, 10), 64, alive=None if goal == "untargeted" else 2)
    aim = {"untargeted": Goal(), "one": Goal(1), "each": Goal(1 - labels)}[goal]
    exact = radii(model, images, labels, norm)
    exact = exact.where(labels == 0, 0) if goal == "one" else exact
    eps = float(exact[exact > 0].median())
    found = attack(AutoAttack(norm=norm, eps=eps, **QUICK), model, images, labels, aim)
    clear = (exact < eps / 1.06) | (exact > eps)
    assert torch.equal(found.fooled[clear], (exact < eps)[clear])
    assert float((found.linf if norm == "linf" else found.l2).max()) <= eps + 1e-6
    assert torch.equal(found.images[~found.fooled], images[~found.fooled])


def test_parts_run_in_order_on_what_is_left() -> None:
    model, images, labels = problem((3, 12, 10), 64)
    labels[:5] = (labels[:5] + 1) % 6
    eps = float(radii(model, images, labels.clone(), "linf")[5:].median())
    whole = AutoAttack(eps=eps, **QUICK)
    rounds = list(whole.rounds(model, images, labels, seed=3))
    assert [r.part for r in rounds] == ["clean", *STANDARD]
    assert int(rounds[0].robust.sum()) == 59 and rounds[0].accuracy == pytest.approx(59 / 64)
    for before, after in itertools.pairwise(rounds):
        assert not bool((after.robust & ~before.robust).any()), "nobody recovers"
        assert torch.equal(after.images[~before.robust], before.images[~before.robust]), "what is fooled is left alone"
        assert torch.equal(model(after.images).argmax(1) == labels, after.robust)
    assert rounds[-1].robust.sum() < rounds[0].robust.sum()
    assert torch.equal(whole.perturb(model, images, labels, seed=3), rounds[-1].images)
    assert repr(rounds[0]) == "Round(clean: 59 of 64 withstand, 92.19%)"


def test_each_part_is_the_method_of_that_name() -> None:
    model, images, labels = problem((1, 8, 8), 20)
    eps = float(radii(model, images, labels, "linf").median())
    alone = {
        "apgd_ce": APGD(eps=eps, steps=20),
        "apgd_dlr": APGD(eps=eps, steps=20, loss="dlr"),
        "apgd_t": APGD(eps=eps, steps=20, loss="targeted_dlr", n_target=5),
        "fab_t": FAB(eps=eps, steps=20, n_target=5),
        "square": Square(eps=eps, queries=100),
        "pgd": parse(f"pgd:eps={eps},steps=20"),
    }
    for part, method in alone.items():
        single = list(AutoAttack(eps=eps, parts=(part,), **QUICK).rounds(model, images, labels))[-1]
        made = method.perturb(model, images, labels)
        fooled = model(made).argmax(1) != labels
        assert torch.equal(single.robust, ~fooled)
        assert torch.equal(single.images[fooled], made[fooled])


def test_standard_settings_are_the_published_ones() -> None:
    whole = AutoAttack()
    assert whole.parts == ("apgd_ce", "apgd_t", "fab_t", "square")
    assert [whole._method(part) for part in whole.parts] == [
        APGD(steps=100, rho=0.75, restarts=1, loss="ce"),
        APGD(steps=100, rho=0.75, restarts=1, loss="targeted_dlr", n_target=9),
        FAB(eps=8 / 255, steps=100, n_target=9, restarts=1, alpha_max=0.1, eta=1.05, beta=0.9),
        Square(queries=5000, p_init=0.8, restarts=1, loss="margin", rescale=False),
    ]


def test_settings_reach_the_parts_that_have_them() -> None:
    whole = AutoAttack(norm="l2", eps=0.5, steps=7, queries=8, n_target=2, fast=True, batch_size=9)
    assert [whole._method(part) for part in whole.parts] == [
        APGD(norm="l2", eps=0.5, steps=7, n_target=2, fast=True, batch_size=9),
        APGD(norm="l2", eps=0.5, steps=7, n_target=2, fast=True, batch_size=9, loss="targeted_dlr"),
        FAB(norm="l2", eps=0.5, steps=7, n_target=2, batch_size=9),
        Square(norm="l2", eps=0.5, queries=8, batch_size=9),
    ]


def test_nothing_left_costs_nothing() -> None:
    model, images, labels = problem((1, 8, 8), 10)
    found = attack(AutoAttack(**QUICK), model, images, (labels + 1) % 6)
    assert (found.forwards, found.gradients) == (10 + 0, 0) and torch.equal(found.images, images)


def test_parts_can_be_chosen_by_name() -> None:
    assert parse("autoattack:parts=apgd_dlr,square,queries=9") == AutoAttack(parts=("apgd_dlr", "square"), queries=9)


@pytest.mark.parametrize(
    ("field", "value"), [("eps", 0.0), ("norm", "l7"), ("steps", 0), ("queries", 0), ("n_target", 0), ("batch_size", 0), ("parts", ())]
)
def test_wrong_settings_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} must .*got "):
        AutoAttack(**{field: value})


def test_unknown_parts_are_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"^parts must be some of apgd_ce, .*square.*, got \('apgd_ce', 'nonsense'\)"):
        AutoAttack(parts=("apgd_ce", "nonsense"))
    with pytest.raises(ValueError, match="^parts must"):
        AutoAttack(parts=("autoattack",))
