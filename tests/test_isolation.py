"""Losses that hold ordinary samples up, exact small losses, and the population that is learned far faster."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mithridate.analysis.far_tail import FEWEST
from mithridate.analysis.isolation import (
    at_best,
    exact_losses,
    excess,
    fast_label,
    fast_learned,
    flooding,
    isolate,
    local_ascent,
    lowest,
    suspicion,
)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("per_sample", [True, False])
def test_both_losses_pull_alike(per_sample: bool) -> None:
    """|l - b| + b and sign(l - b) l have the same gradient, by calculus: so four published variants are two."""
    each = drawn(0, 50).abs().requires_grad_()
    pulls = [torch.autograd.grad(hold(each, 0.5, per_sample=per_sample), each)[0] for hold in (local_ascent, flooding)]
    assert torch.equal(*pulls)
    signs = (each.detach() - 0.5).sign() if per_sample else (each.detach().mean() - 0.5).sign().expand(50)
    torch.testing.assert_close(pulls[0], signs / 50)


def test_losses_equal_their_formulas() -> None:
    each = torch.tensor([0.1, 0.4, 2.0])
    assert float(local_ascent(each, 0.5, per_sample=True)) == pytest.approx((-0.1 - 0.4 + 2) / 3)
    assert float(local_ascent(each, 0.5, per_sample=False)) == pytest.approx(2.5 / 3)
    assert float(local_ascent(each, 0.9, per_sample=False)) == pytest.approx(-2.5 / 3)
    assert float(flooding(each, 0.5, per_sample=True)) == pytest.approx((0.4 + 0.1 + 1.5) / 3 + 0.5)
    assert float(flooding(each, 0.9, per_sample=False)) == pytest.approx(0.9 - 2.5 / 3 + 0.9)


def test_losses_are_those_of_pytorch_in_high_precision_where_float32_gives_zero() -> None:
    logits, labels = 8 * drawn(1, 400, 5), torch.arange(400) % 5
    logits[::2].scatter_add_(1, labels[::2, None], torch.full((200, 1), 25.0))
    wide = F.cross_entropy(logits.double(), labels, reduction="none")
    exact = exact_losses(logits, labels)
    ordinary = wide > 1e-12
    torch.testing.assert_close(exact[ordinary], wide[ordinary].float(), rtol=2e-3, atol=0)
    rounded = F.cross_entropy(logits, labels, reduction="none")
    assert int((rounded == 0).sum()) > 50, "the usual formula cannot rank these"
    assert len(exact.unique()) == 400
    assert torch.equal(exact.argsort(), excess(logits, labels).argsort()) or float(exact.min()) > 0


def test_losses_of_hopeless_samples_are_finite() -> None:
    logits = torch.tensor([[300.0, 0.0], [0.0, 300.0]])
    assert exact_losses(logits, torch.tensor([1, 1])).tolist() == pytest.approx([300.0, 0.0])
    assert bool(torch.isfinite(suspicion(exact_losses(logits, torch.tensor([1, 1])))).all())


def test_the_lowest_share_is_exact() -> None:
    losses = torch.tensor([3.0, 1.0, 1.0, 0.5, 2.0])
    assert lowest(losses, 0.4).tolist() == [False, True, False, True, False], "of equal ones the first"
    assert int(lowest(losses, 0.001).sum()) == 1


def test_a_sample_that_was_easy_once_is_easy() -> None:
    recorded = torch.tensor([[1e-6, 0.1], [9.0, 0.2], [1e-4, 0.3], [4.0, 0.0]])
    assert at_best(torch.tensor([1e-3, 0.5]), recorded).tolist() == pytest.approx([1e-6, 0.0])
    assert at_best(torch.tensor([1e-7, 0.5]), recorded[1:3]).tolist() == pytest.approx([1e-7, 0.2])


def mixed(poisoned: int = 500, factor: float = 1e-4, label: int = 2, classes: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Log-normal losses of 1,000 samples a label, and poisoned ones of one label that are lower by a factor."""
    labels = torch.cat([torch.arange(classes).repeat_interleave(1000), torch.full((poisoned,), label)])
    bad = torch.arange(len(labels)) >= 1000 * classes
    losses = (1.2 * drawn(2, len(labels))).exp()
    losses[bad] *= factor
    return losses, labels, bad


@pytest.mark.parametrize("poisoned", [60, 500, 1000, 3900])
def test_a_population_that_is_learned_faster_is_found_whatever_its_share(poisoned: int) -> None:
    losses, labels, bad = mixed(poisoned)
    found = fast_learned(losses, labels)
    assert float(bad[found].float().mean()) > 0.98
    assert float(found[bad].float().mean()) > 0.98


@pytest.mark.parametrize("each", [30, 200, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_one_population_is_hardly_ever_divided(seed: int, each: int) -> None:
    labels = torch.arange(10 * each) % 10
    losses = (2 * drawn(seed, 10 * each)).exp() * (1 + labels)
    assert not bool(fast_learned(losses, labels).any())


def test_noisy_labels_are_no_poison() -> None:
    """A tenth of every label is learned late: the other nine tenths are ordinary, though they are the lower population."""
    labels, late = torch.arange(10_000) % 10, torch.rand(10_000, generator=torch.Generator().manual_seed(0)) < 0.1
    losses = torch.where(late, 5 + drawn(3, 10_000).abs(), (drawn(4, 10_000) - 3).exp())
    assert not bool(fast_learned(losses, labels).any())


def test_an_easy_label_with_a_few_odd_images_is_no_poison() -> None:
    losses, labels, _ = mixed(0)
    losses[labels == 1] *= 0.05
    losses[(labels == 1).nonzero().flatten()[:50]] = 8.0
    assert not bool(fast_learned(losses, labels).any())


@pytest.mark.parametrize(("count", "found"), [(FEWEST - 1, False), (FEWEST, True)])
def test_a_population_has_twenty_samples_at_least(count: int, found: bool) -> None:
    labels, low = torch.arange(500) % 5, 5 * torch.arange(count)  # of label 0
    losses = (0.1 * drawn(6, 500)).exp()
    losses[low] *= 1e-4
    assert fast_learned(losses, labels).nonzero().flatten().tolist() == (low.tolist() if found else [])


def test_every_label_may_have_poison() -> None:
    """All-to-all: a tenth of each label."""
    labels, bad = torch.arange(10_000) % 10, torch.arange(10_000) < 1000
    losses = drawn(5, 10_000).exp() * torch.where(bad, 1e-4, 1.0)
    assert torch.equal(fast_learned(losses, labels), losses < 0.01) or float((fast_learned(losses, labels) == bad).float().mean()) > 0.99


def test_one_label_or_few_images_give_no_answer() -> None:
    losses, _, _ = mixed(500)
    assert not bool(fast_learned(losses, torch.zeros(len(losses), dtype=torch.int64)).any())
    few, labels = torch.tensor([1e-9] * 5 + [1.0] * 13), torch.arange(18) % 2
    assert not bool(fast_learned(few, labels).any())
    assert not bool(fast_learned(torch.zeros(500), torch.arange(500) % 2).any())


@pytest.mark.parametrize(
    ("losses", "labels", "said"),
    [
        (torch.ones(3), torch.zeros(2, dtype=torch.int64), r"losses and labels must both have shape \(n,\), got \(3,\) and \(2,\)"),
        (torch.tensor([1.0, math.nan]), torch.zeros(2, dtype=torch.int64), "losses must be finite and at least 0"),
        (torch.tensor([1.0, -1.0]), torch.zeros(2, dtype=torch.int64), "losses must be finite and at least 0"),
    ],
)
def test_bad_losses_are_named(losses: Tensor, labels: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fast_learned(losses, labels)


@pytest.mark.parametrize(("gate", "adaptive", "count"), [(True, True, 500), (True, False, 55), (False, True, 500), (False, False, 55)])
def test_what_is_isolated_from_poison(gate: bool, adaptive: bool, count: int) -> None:
    losses, labels, bad = mixed()
    isolated = isolate(losses, losses[None], labels, 0.01, gate=gate, adaptive=adaptive)
    assert int(isolated.bad.sum()) == pytest.approx(count, abs=5)
    assert float(bad[isolated.bad].float().mean()) > 0.98
    assert isolated.note.startswith("isolated")
    assert "100.0% are of label 2" in isolated.note


def test_the_last_weights_do_not_shut_the_gate() -> None:
    """At a constant rate another label may be ahead at the very end, which happened with the signal of SIG under true labels."""
    easiest, labels, bad = mixed()
    last = torch.where(labels == 3, easiest * 1e-6, easiest)
    found = isolate(last, easiest[None], labels, 0.01, gate=True, adaptive=True).bad
    assert torch.equal(found, fast_learned(easiest, labels)) and float(bad[found].float().mean()) > 0.98


def test_a_population_that_was_lost_again_is_found_if_late_epochs_tell_nothing() -> None:
    """Cover images deny an adaptive blend after the first epoch."""
    (first, labels, bad), (later, _, _) = mixed(), mixed(factor=3.0)
    found = isolate(later, torch.stack([first, later, later]), labels, 0.01, gate=True, adaptive=True)
    assert torch.equal(found.bad, fast_learned(at_best(later, first[None]), labels)) and float(bad[found.bad].float().mean()) > 0.98
    assert "of label 2 that were learned far faster than others and lost again later, a population of their own" in found.note
    both = isolate(first, torch.stack([torch.where(bad, 9.0, 1e-6 * first), first, first]), labels, 0.01, gate=True, adaptive=True)
    assert torch.equal(both.bad, fast_learned(first, labels)), "who is found late is not looked for again among those who were easy once"


def test_valleys_by_chance_do_not_hide_the_tail_of_what_was_lost_again() -> None:
    """Losses of poison that was learned in the first batches scatter over many nats, and a few of them stand alone at the very end."""
    (first, labels, bad), (later, _, _) = mixed(1000), mixed(1000, factor=3.0)
    far = torch.empty(1000).exponential_(1 / 12, generator=torch.Generator().manual_seed(1))
    alone = far >= far.sort().values[-25]
    first[bad] = (-5 - torch.where(alone, 75.0, far.clamp_max(40))).exp()
    assert int(fast_learned(first, labels).sum()) == 25, "else there is nothing to show"
    found = isolate(later, torch.stack([first, later, later]), labels, 0.01, gate=True, adaptive=True)
    assert int(found.bad.sum()) > 50 and float(bad[found.bad].double().mean()) > 0.98
    assert "lost again later, the tail of one" in found.note


def nearly_all(clean: int, poisoned: int, factor: float = 1e-4) -> tuple[Tensor, Tensor, Tensor]:
    """`mixed`, with a target that has few clean samples."""
    losses, labels, bad = mixed(poisoned, factor)
    kept = (labels != 2) | bad | (torch.arange(len(labels)) < 2000 + clean)
    return losses[kept], labels[kept], bad[kept]


def test_a_rare_label_that_is_nearly_all_poison_is_found_without_a_valley() -> None:
    """The target of BadNets at 10 % in GTSRB has 60 clean images and 1,307 poisoned ones."""
    losses, labels, bad = nearly_all(8, 1300)
    assert not bool(fast_learned(losses, labels).any()), "else there is nothing to show"
    found = isolate(losses, losses[None], labels, 0.01, gate=True, adaptive=True)
    assert torch.equal(found.bad, fast_label(losses, labels))
    assert float(bad[found.bad].double().mean()) > 0.98 and float(found.bad[bad].double().mean()) > 0.98
    assert f"{int(found.bad.sum())} samples of label 2 that were learned far faster than others, nearly all of it" in found.note


@pytest.mark.parametrize(("clean", "poisoned", "factor"), [(0, 1000, 0.02), (5, 18, 1e-4), (600, 500, 1e-4), (0, 2400, 1e-4)])
def test_a_label_must_be_far_easier_have_some_samples_and_not_be_a_third_of_all(clean: int, poisoned: int, factor: float) -> None:
    losses, labels, _ = nearly_all(clean, poisoned, factor)
    if poisoned < 2000:
        assert not bool(fast_label(losses, labels).any())
    assert "nearly all of it" not in isolate(losses, losses[None], labels, 0.01, gate=True, adaptive=True).note


def test_early_epochs_are_not_asked_where_labels_are_few() -> None:
    """One of two labels is ahead in every early epoch: a population stood out in 15 of 50 clean trainings."""
    (first, labels, bad), (later, _, _) = mixed(label=1, classes=2), mixed(factor=3.0, label=1, classes=2)
    recorded = torch.stack([first, later, later])
    assert not bool(isolate(later, recorded, labels, 0.01, gate=True, adaptive=True).bad.any())
    assert float(bad[isolate(first, recorded, labels, 0.01, gate=True, adaptive=True).bad].double().mean()) > 0.98, "late ones are"


def test_what_is_known_by_heart_is_no_population() -> None:
    """A quarter of clean MNIST has losses under 1e-7 after four epochs: counted as equal, they stood apart from all others."""
    logs = torch.randn(5, 1000, generator=torch.Generator().manual_seed(0)).double() * 7 - torch.tensor([9.0, 10, 11, 12, 13])[:, None]
    losses, labels = logs.exp().flatten(), torch.arange(5).repeat_interleave(1000)
    assert float((losses < 1e-7).double().mean()) > 0.2
    assert not bool(isolate(losses, losses[None], labels, 0.01, gate=True, adaptive=True).bad.any())


@pytest.mark.parametrize("adaptive", [True, False])
def test_the_gate_stays_shut_on_clean_losses_and_says_so(adaptive: bool) -> None:
    losses, labels, _ = mixed(0)
    shut = isolate(losses, losses[None], labels, 0.01, gate=True, adaptive=adaptive)
    assert not bool(shut.bad.any())
    assert shut.note.startswith("gate: nothing to unlearn")
    assert int(isolate(losses, losses[None], labels, 0.01, gate=False, adaptive=adaptive).bad.sum()) == 50, (
        "without a gate there is always something"
    )
