"""Taking back what a few samples taught: gradient ascent on them, as published and in a form that cannot run away.

Source: Li et al., NeurIPS 2021, arXiv 2110.11571, section 3.3 (global gradient ascent); the bounded loss is that of negative learning
(Kim et al., ICCV 2019, arXiv 1908.07387, equation 2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mithridate import loops
from mithridate.analysis.early import train_steadily
from mithridate.analysis.isolation import excess
from mithridate.data import Samples, to_float
from mithridate.errors import NotFinite
from mithridate.nn.modes import clone, predict

PATIENCE = 4  # how many times as long as a published ascent a bounded one may take
CLIP = 5.0  # largest norm of a bounded step's gradient: far above that of an ordinary step, far below that of a model in free fall
TOLERANCE = 0.01  # share of held-out accuracy that unlearning may cost, or one standard error of it where that is more


def ascent(logits: Tensor, labels: Tensor) -> Tensor:
    """Minus the cross-entropy of logits (n, classes) under labels (n,): no gradient where the model is sure, no end where it is not."""
    return -F.cross_entropy(logits, labels)


def negation(logits: Tensor, labels: Tensor) -> Tensor:
    """-log(1 - p of the label), averaged: pulls as hard as cross-entropy where the model is sure, and ends at 0 where it has let go."""
    return F.softplus(-excess(logits, labels)).mean()


class Opposed:
    """Two sets of samples in one batch: those that the loop runs through, and random others beside them, each with its own loss.

    Args:
        other: the others.
        count: how many of them stand in each batch.
        own: loss of the loop's samples.
        others: loss of the others.
        weight: of that loss, the loop's own having 1.
    """

    def __init__(self, other: Samples, count: int, own: loops.Loss, others: loops.Loss, weight: float = 1.0) -> None:
        self.other, self.count, self.own, self.others, self.weight = other, count, own, others, weight
        self.labels = other.labels[:0]

    def transform(self, model: nn.Module, images: Tensor, labels: Tensor, epoch: int) -> Tensor:
        """Images of a batch (n, c, h, w) with the others behind them."""
        rows = torch.randint(len(self.other), (self.count,)).to(self.other.images.device)  # the loop seeds and forks the global generator
        self.labels = self.other.labels[rows].to(labels.device)
        return torch.cat([images, to_float(self.other.images[rows]).to(images)])

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Weighted sum of both losses: logits (n + count, classes), labels (n,) -> scalar."""
        return self.own(logits[: len(labels)], labels) + self.weight * self.others(logits[len(labels) :], self.labels)


@dataclass(frozen=True, eq=False)
class Sides:
    """What a training set was divided into: samples to unlearn, others to keep, and some of these that nothing is learned from."""

    bad: Samples
    rest: Samples
    held: Samples


def divide(samples: Samples, bad: Tensor, losses: Tensor, ratio: float, seed: int, *, hold: bool) -> Sides:
    """The sides of n samples: as many bad ones as `ratio` of n, and those that are not bad, but for some to hold out.

    Of the bad ones (n,) bool the middle half by losses (n,) stands for all: the lowest are poisoned images of the target class itself,
    which show two reasons for their label, and among the highest are ordinary ones of it; to unlearn these costs the class. Which of the
    middle are taken is drawn. A twentieth of the others is held out, 1,000 at most, if `hold` says so and there is anything to unlearn.
    """
    generator = torch.Generator().manual_seed(seed)
    rows, rest = bad.nonzero().flatten(), (~bad).nonzero().flatten()
    if not len(rows):
        return Sides(samples[rows], samples, samples[rows])
    rest = rest[torch.randperm(len(rest), generator=generator)]
    held, count = min(1000, len(rest) // 20) if hold else 0, max(1, round(ratio * len(samples)))
    spare = max(0, len(rows) - max(count, len(rows) // 2)) // 2
    middle = rows[losses[rows].argsort(stable=True)][spare : len(rows) - spare]
    chosen = middle[torch.randperm(len(middle), generator=generator)[:count]]
    return Sides(samples[chosen.sort().values], samples[rest[held:].sort().values], samples[rest[:held]])


def train_against(
    model: nn.Module, sides: Sides, recipe: loops.Recipe, *, least: float | None, seed: int, hooks: loops.Hooks
) -> tuple[nn.Module, tuple[str, ...]]:
    """A copy of the model trained on the rest, each step of which also unlearns bad samples, and what was seen.

    Beside each batch stand an eighth as many random bad samples: their mean is that of all, but noisier. Published: `ascent` on them,
    which weighs as much as all the rest. Bounded: `negation`, where each weighs as much as any other sample, so that the ordinary ones
    among the isolated do not cost their class, with clipped gradients; and a run that ends with a lower held-out accuracy than the
    model had that isolated was wrong to unlearn, and is made again without.

    Args:
        model: the infected one, or an untrained one.
        sides: what to unlearn, and what to learn.
        recipe: of the training.
        least: the held-out accuracy of the model that isolated; None for the published form.
        seed: of order, augmentation and companions.
        hooks: `transform`, `loss` and `clip` are set here.

    Raises:
        NotFinite: training diverges at a hundredth of the learning rate, too.
    """
    count = max(1, recipe.batch_size // 8)
    against, weight = (ascent, 1.0) if least is None else (negation, count / recipe.batch_size)
    both = Opposed(sides.bad, count, F.cross_entropy, against, weight)
    own = replace(hooks, transform=both.transform, loss=both.loss, clip=None if least is None else CLIP)
    trained, notes = train_steadily(model, sides.rest, recipe, seed=seed, hooks=own)
    if least is None:
        return trained, (*notes, "unlearned without a bound")
    known, right = share_right(trained, sides.bad), share_right(trained, sides.held)
    seen = f"the isolated images keep their labels in {known:.1%} of cases, held-out accuracy {right:.1%}, {least:.1%} before"
    if right >= least - _bearable(least, len(sides.held)):
        return trained, (*notes, f"unlearned while learning: {seen}")
    own = replace(hooks, task=f"{hooks.task} without unlearning", tag=f"{hooks.tag} without unlearning")
    trained, more = train_steadily(model, sides.rest, recipe, seed=seed, hooks=own)
    return trained, (*notes, f"unlearning cost too much and was rolled back: {seen}", *more)


def take_back(
    model: nn.Module, sides: Sides, recipe: loops.Recipe, *, bounded: bool, seed: int, hooks: loops.Hooks
) -> tuple[nn.Module, str]:
    """An ascended copy of the model, and what was seen, a sentence.

    Published: `ascent` on the bad samples alone, for all epochs of the recipe. Bounded: as many random ones of the rest are learned
    beside them, gradients are clipped, and it ends once none of the bad ones keeps its label; the epoch which unlearned most
    counts, among those whose cost in held-out accuracy is bearable. If none is, or training diverges, the model is given back as
    it was. (`negation` has an end of its own, but few steps at a low learning rate do not get there.)

    Args:
        model: the infected one.
        sides: what to unlearn, and what else there is.
        recipe: of the ascent; a bounded one may take `PATIENCE` times as many epochs.
        bounded: which form.
        seed: of order and companions.
        hooks: `after` is called after each epoch; the loss is set here.

    Raises:
        NotFinite: the published form diverges.
    """
    if not bounded:
        return loops.train(model, sides.bad, recipe, seed=seed, hooks=replace(hooks, loss=ascent)), "unlearned without a bound"
    both = Opposed(sides.rest, min(recipe.batch_size, len(sides.bad)), ascent, F.cross_entropy)
    recipe = replace(recipe, epochs=PATIENCE * recipe.epochs)
    best = _Best(model, sides, hooks.after)
    own = replace(hooks, transform=both.transform, loss=both.loss, after=best.after, clip=CLIP)
    try:
        loops.train(model, sides.bad, recipe, seed=seed, hooks=own)
    except NotFinite:
        return best.model, f"unlearning diverged, the last good state was kept: {best.note}"
    return best.model, best.note


class _Best:
    """The state that has unlearned most at a bearable price."""

    def __init__(self, model: nn.Module, sides: Sides, after: loops.After) -> None:
        self.sides, self.also = sides, after
        self.known, self.right = self._measured(model)
        self.bearable = self.right - _bearable(self.right, len(sides.held))
        self.least, self.model = self.known, clone(model).eval()
        self.note = f"nothing unlearned, the isolated images keep their labels in {self.known:.1%} of cases"

    def after(self, model: nn.Module, epochs: int) -> bool:
        """Measure an epoch's state, keep it if it is the best, and say whether to go on."""
        known, right = self._measured(model)
        if right >= self.bearable and known < self.least:
            self.least, self.model = known, clone(model).to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
            self.note = (
                f"unlearned in epoch {epochs}: the isolated images keep their labels in {known:.1%} of cases, {self.known:.1%} before, "
                f"held-out accuracy {right:.1%}, {self.right:.1%} before"
            )
        return self.also(model, epochs) and known > 0

    def _measured(self, model: nn.Module) -> tuple[float, float]:
        return share_right(model, self.sides.bad), share_right(model, self.sides.held)


def _bearable(accuracy: float, count: int) -> float:
    """How much of an accuracy over `count` images unlearning may cost."""
    return float(max(TOLERANCE, (accuracy * (1 - accuracy) / max(1, count)) ** 0.5))


def share_right(model: nn.Module, samples: Samples) -> float:
    """Accuracy in [0, 1]: 1 where there is nothing to get wrong, 0 of a model that is broken."""
    if not len(samples):
        return 1.0
    try:
        return float((predict(model, samples).argmax(1) == samples.labels.cpu()).float().mean())
    except NotFinite:
        return 0.0
