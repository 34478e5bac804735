"""APGD against linear models, whose exact radius is known, and its pieces against the paper's definitions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from linear import SHAPES, Linear, problem, radii
from mithridate.nn.ascent import Budget
from mithridate.nn.modes import frozen
from mithridate.roles import Goal
from mithridate.threats.attack import attack
from mithridate.threats.evasion.apgd import APGD
from mithridate.threats.searching.auto_pgd import Climb, checkpoints
from mithridate.threats.searching.losses import Case, away, dlr, lead, rivals, targeted_dlr

LOSSES = ("ce", "dlr", "targeted_dlr")


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("shape", "count"), SHAPES)
def test_fools_at_the_exact_radius_and_never_below(norm: Any, loss: Any, shape: tuple[int, int, int], count: int) -> None:
    model, images, labels = problem(
        shape, count, alive=None if loss == "targeted_dlr" else 2
    )  # the others climb to any class, not the nearest
    exact = radii(model, images, labels, norm)
    for i in torch.linspace(0, count - 1, min(count, 3)).long().tolist():
        for scale, fooled in ((0.999, False), (1.05, True)):
            found = attack(APGD(norm=norm, eps=float(exact[i]) * scale, loss=loss, steps=50), model, images[i : i + 1], labels[i : i + 1])
            assert bool(found.fooled[0]) is fooled


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("goal", ["untargeted", "one", "each"])
def test_many_images_at_once_each_at_its_own_radius(norm: Any, loss: Any, goal: str) -> None:
    """One radius for 64 images: exactly those whose own radius is smaller are fooled, and all stay in the ball and the box."""
    model, images, labels = problem((3, 12, 10), 64, alive=None if goal == "untargeted" and loss == "targeted_dlr" else 2)
    aim = {"untargeted": Goal(), "one": Goal(1), "each": Goal(1 - labels)}[goal]
    exact = radii(model, images, labels, norm, None if goal == "untargeted" else 1 - labels)
    exact = exact.where(aim.anchor(1 - labels) != labels, 0) if goal == "one" else exact
    eps = float(exact[exact > 0].median())
    found = attack(APGD(norm=norm, eps=eps, loss=loss, n_target=5), model, images, labels, aim)
    assert bool(found.fooled[exact < eps / 1.05].all())
    assert not bool(found.fooled[exact > eps * 1.0001].any())
    size = found.linf if norm == "linf" else found.l2
    assert float(size.max()) <= eps + 1e-6
    assert 0 <= float(found.images.min()) <= float(found.images.max()) <= 1
    assert torch.equal(found.images[~found.fooled], images[~found.fooled])
    assert 10 < int(found.fooled.sum()) < 55


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_best_loss_of_a_run_is_the_exact_maximum(norm: Any) -> None:
    """With a radius too small to fool, the climb goes to the worst point of the ball, which is known."""
    model, images, labels = problem((3, 12, 10), 8, classes=2)
    eps = float(radii(model, images, labels, norm).min()) / 2
    climb = Climb(model, lead, Budget(norm=norm, eps=eps, steps=100), 0.75, torch.Generator())
    case, search = Case(labels, 1 - labels, Goal()), climb._begin(images)
    with frozen(model), torch.enable_grad():
        climb._look(search, case)
        for done in range(1, 101):
            climb._move(search, 0.75 if done > 1 else 1.0)
            climb._look(search, case)
            if done in checkpoints(100):
                climb._judge(search, checkpoints(100)[done])
    slope = (model.weight[1] - model.weight[0]).detach().norm(p=1 if norm == "linf" else 2)
    with torch.no_grad():
        gained = search.best_loss - lead(model(images), case)
    torch.testing.assert_close(gained, (eps * slope).expand(8), rtol=1e-3, atol=1e-4)
    assert float(search.step.max()) < 2 * eps


def test_checkpoints_are_the_published_ones() -> None:
    """Section 3.2 for 100 steps: p = 0, 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99."""
    assert list(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(100)[41] == 19


def test_counts_what_it_takes_and_leaves_early() -> None:
    model, images, labels = problem((1, 8, 8), 10)
    easy, none = APGD(eps=0.5, steps=10), APGD(eps=1e-6, steps=10, restarts=2)
    assert attack(easy, model, images, labels).gradients < 10 * 4
    idle = attack(none, model, images, labels)
    assert (idle.gradients, idle.forwards) == (10 * 11 * 2, 10 + 10 * 11 * 2)
    many = attack(APGD(eps=1e-6, steps=10, loss="targeted_dlr", n_target=99), model, images, labels)
    assert many.gradients == 10 * 11 * 5, "five wrong classes is all there are"
    wrong = attack(none, model, images, (labels + 1) % 6)
    assert (wrong.gradients, wrong.forwards) == (0, 10) and torch.equal(wrong.images, images)


@pytest.mark.parametrize("loss", LOSSES)
def test_fast_claims_nothing_that_full_precision_denies(loss: Any) -> None:
    model, images, labels = problem((3, 12, 10), 64, alive=None if loss == "targeted_dlr" else 2)
    exact = radii(model, images, labels, "linf")
    eps = float(exact.median())
    found = attack(APGD(eps=eps, loss=loss, n_target=5, fast=True), model, images, labels)
    assert not bool(found.fooled[exact > eps].any()) and bool(found.fooled[exact < eps / 1.3].all())
    assert torch.equal(found.images[~found.fooled], images[~found.fooled]), "what bf16 alone calls fooled is not returned"
    assert float(found.linf.max()) <= eps + 1e-6


def test_batches_change_nothing_but_the_draws() -> None:
    model, images, labels = problem((3, 12, 10), 20)
    eps = float(radii(model, images, labels, "linf").median())
    one, whole = (attack(APGD(eps=eps * 1.2, batch_size=size), model, images, labels).fooled for size in (3, 256))
    assert int((one != whole).sum()) <= 1


def test_losses_follow_their_equations() -> None:
    logits = torch.tensor([[4.0, 1.0, 2.0, -1.0, 0.0], [0.5, 3.0, 1.0, 2.0, 0.0]])
    case = Case(torch.tensor([0, 0]), torch.tensor([2, 3]), Goal())
    assert torch.allclose(dlr(logits, case), torch.tensor([-(4 - 2) / (4 - 1), -(0.5 - 3) / (3 - 1)]))
    assert torch.allclose(targeted_dlr(logits, case), torch.tensor([-(4 - 2) / (4 - 0.5 * (1 + 0)), -(0.5 - 2) / (3 - 0.5 * (1 + 0.5))]))
    aimed = Case(case.labels, case.targets, Goal(case.targets))
    assert torch.allclose(targeted_dlr(logits, aimed), torch.tensor([(2 - 4) / (4 - 0.5), (2 - 3) / (3 - 0.75)]))
    for loss in (dlr, targeted_dlr):
        assert torch.allclose(loss(logits * 7 + 3, case), loss(logits, case)), "neither scale nor shift matters"
    assert torch.allclose(away(logits, case), -logits.log_softmax(1)[:, 0])
    assert rivals(logits, case.labels, 2).tolist() == [[2, 1], [1, 3]]
    assert rivals(logits, case.labels, 9).shape == (2, 4)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("targeted", [False, True])
def test_few_classes_still_have_a_gradient(classes: int, loss: Any, targeted: bool) -> None:
    """The ratios are constant for two or three classes: the plain margin takes their place."""
    model, images, labels = problem((3, 12, 10), 8, classes=classes, alive=2 if targeted else None)
    targets = 1 - labels if targeted else None
    eps = 1.3 * float(radii(model, images, labels, "linf", targets).max())
    assert bool(attack(APGD(eps=eps, loss=loss), model, images, labels, Goal(targets)).fooled.all())


def test_flat_cross_entropy_does_not_hide_the_gradient_from_dlr() -> None:
    """Logits of a huge scale: in fp32 the cross-entropy is exactly zero, and so is its gradient."""

    class Steep(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return 1e5 * self.net(x)

    model, images, labels = problem((3, 12, 10), 16)
    eps = 1.05 * float(radii(model, images, labels, "linf").max())
    assert bool(attack(APGD(eps=eps, loss="targeted_dlr"), Steep(model), images, labels).fooled.all())
    assert not bool(attack(APGD(eps=eps / 20, loss="ce"), Steep(model), images, labels).fooled.any())


@pytest.mark.parametrize(
    ("field", "value"), [("eps", 0.0), ("norm", "l7"), ("loss", "mse"), ("steps", 0), ("restarts", 0), ("n_target", 0), ("rho", 1.5)]
)
def test_wrong_settings_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} must .*got {value!r}"):
        APGD(**{field: value})


def test_classes_that_do_not_exist_are_named() -> None:
    model, images, labels = problem((1, 8, 8), 4)
    with pytest.raises(ValueError, match=r"^labels and target must lie in \[0, 6\), got 9"):
        APGD().perturb(model, images, labels, Goal(9))
    with pytest.raises(ValueError, match=r"^labels and target must lie in \[0, 6\), got -1"):
        APGD().perturb(model, images, labels - labels.min() - 1)
    with pytest.raises(ValueError, match="^model must know at least 2 classes, got 1"):
        APGD().perturb(Linear((1, 8, 8), 1), images, torch.zeros_like(labels))


class Viewing(nn.Module):
    """Flattens with `view`, which channels-last features do not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).view(len(x), -1))


def test_fast_takes_models_that_flatten_with_view() -> None:
    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    made = APGD(eps=0.1, steps=3, fast=True).perturb(Viewing(), images, labels)
    assert made.shape == images.shape and float((made - images).abs().max()) <= 0.1 + 1e-6
