"""What an attack is said to have cost and reached, against counts made by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mithridate.nn.effort import metered
from mithridate.nn.modes import frozen
from mithridate.roles import Goal
from mithridate.threats.attack import attack
from mithridate.threats.evasion.pgd import PGD
from mithridate.threats.searching.batches import in_batches


def model() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with torch.no_grad():
        net[1].weight.copy_(torch.eye(3).repeat_interleave(4, 1))
        net[1].bias.zero_()
    return net


IMAGES = torch.stack([torch.full((3, 2, 2), 0.4) + 0.05 * torch.eye(3)[i % 3, :, None, None] for i in range(7)])
LABELS = torch.arange(7) % 3


def test_forwards_and_gradients_are_counted_where_they_happen() -> None:
    net = model()
    with metered(net) as effort, frozen(net):
        x = IMAGES.clone().requires_grad_()
        logits = net(x)
        for i in range(3):
            torch.autograd.grad(logits[:, i].sum(), x, retain_graph=True)
        net(IMAGES[:2])
    assert (effort.forwards, effort.gradients) == (9, 21)
    net(IMAGES)
    assert effort.forwards == 9 and not net._forward_hooks


def test_an_attack_says_what_it_took() -> None:
    done = attack(PGD(eps=0.1, steps=3, early_exit=False, random_start=False, batch_size=4), model(), IMAGES, LABELS)
    assert bool(done.fooled.all()) and torch.equal(done.fooled, done.predicted != LABELS)
    assert done.gradients == 21 and done.forwards >= 21
    assert float(done.linf.max()) <= 0.1 + 1e-6
    torch.testing.assert_close(done.l2, (done.images - IMAGES).flatten(1).norm(dim=1))
    assert repr(done).startswith("Attacked(7 of 7 fooled, ")


def test_goals_follow_their_images_through_the_batches() -> None:
    seen: list[Tensor] = []

    def note(images: Tensor, labels: Tensor, goal: Goal) -> Tensor:
        assert isinstance(goal.target, Tensor) and len(images) == len(labels) == len(goal.target)
        seen.append(goal.target)
        return images

    targets = (LABELS + 1) % 3
    assert torch.equal(in_batches(note, IMAGES, LABELS, Goal(targets), 3), IMAGES)
    assert [len(part) for part in seen] == [3, 3, 1] and torch.equal(torch.cat(seen), targets)
    assert Goal(2)[LABELS == 0].target == 2 and Goal()[:2].target is None
    assert torch.equal(Goal(2).anchor(LABELS), torch.full((7,), 2)) and torch.equal(Goal().anchor(LABELS), LABELS)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="images must be float"):
        attack(PGD(), model(), IMAGES[:0], LABELS[:0])
