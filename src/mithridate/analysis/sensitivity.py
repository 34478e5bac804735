"""How a model's answers fare when its weights are mutated: adversarial inputs change label more than clean ones, backdoor inputs less.

Source: label-change rate, Wang et al., ICSE 2019, section 3; one strong mutation for both threats, Jin et al. 2020, arXiv 2006.14871.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mithridate.analysis.prepared import Prepared
from mithridate.analysis.sequential import Walk, bounds, reachable, settled, walk_both
from mithridate.analysis.two_sided import class_quantiles
from mithridate.data import Samples
from mithridate.nn.modes import device_of
from mithridate.nn.mutants import level_for, stack
from mithridate.nn.suffix import Suffix
from mithridate.nn.taps import trace
from mithridate.roles import Progress, silent

GROUP = 5  # mutants after which decided inputs are let go
SEARCHED = 25  # mutants that a level is searched with
KEPT = 2**26  # numbers of mutated weights that are kept once drawn
LIKELY = 256  # images at once, where their number is not known
EXTREME = 0.01  # share of clean inputs on each side whose rates count as unusual


@dataclass(frozen=True, eq=False)
class Mutants:
    """Mutants of a model, as seeds: their weights are drawn when they run, and forgotten if they are many numbers.

    Attributes:
        suffix: what has to run, and the layers that are mutated.
        operator: a name in `OPERATORS`.
        level: how strong.
        seeds: (k,) int64, one a mutant.
        together: whether all mutants may run at once, as `suffix.can_batch` says.
        drawn: the weights (k, ...) of all of them under their names, if they were drawn before.
    """

    suffix: Suffix
    operator: str
    level: float
    seeds: Tensor
    together: bool
    drawn: Mapping[str, Tensor] | None = None

    def logits(self, given: Tensor, which: slice = slice(None)) -> Tensor:
        """Logits (k, n, classes) of all mutants, or of some, for the suffix's input (n, ...)."""
        if self.drawn is None:
            stacked = stack(self.operator, self.suffix.weights(), self.level, self.seeds[which].tolist())
        else:
            stacked = {name: weights[which] for name, weights in self.drawn.items()}
        return self.suffix.logits(stacked, given, together=self.together)

    def keeping(self, kept: Prepared[Mapping[str, Tensor]]) -> Mutants:
        """The same mutants, drawn but once if all their weights are at most `KEPT` numbers."""
        weights = self.suffix.weights()
        if len(self.seeds) * sum(weight.numel() for weight in weights.values()) > KEPT:
            return self
        if torch.compiler.is_compiling():  # there is no chance in an exported program
            return replace(self, drawn=kept.last)
        return replace(self, drawn=kept.of((*weights.values(), self.seeds), tuple(weights), self.operator, self.level))


def stock() -> Prepared[Mapping[str, Tensor]]:
    """A place for the weights of mutants that are `keeping` them."""
    return Prepared(_drawn)


def _drawn(*given: Any) -> Mapping[str, Tensor]:
    *weights, seeds, names, operator, level = given
    return stack(operator, dict(zip(names, weights, strict=True)), level, seeds.tolist())


@dataclass(frozen=True, eq=False)
class Trial:
    """A sequential test of the label changes of each input, on both sides of the usual rate of its class.

    Attributes:
        rates: (4, classes) as `walk_both` takes them.
        limits: evidence that decides.
    """

    rates: Tensor
    limits: tuple[float, float]

    @classmethod
    def of(cls, clean: Sensitivity, label: Tensor, errors: tuple[float, float], *, classes: int, least: int) -> Trial:
        """A class's median rate against those that 1 % of its clean inputs lie beyond, on either side; all limits are within reach.

        Args:
            clean: what all mutants did to clean inputs.
            label: (n,) the model's labels of them.
            errors: wanted shares of usual inputs called unusual, and of unusual ones called usual.
            classes: how many there are.
            least: clean inputs a class needs to have rates of its own.

        Raises:
            ValueError: as for `bounds`.
        """
        limits, most = bounds(*errors), int(clean.used.max())
        low, median, high = class_quantiles(clean.rate, label, (EXTREME, 0.5, 1 - EXTREME), classes=classes, least=least)
        return cls(torch.stack([*reachable(low, median, limits, most), *reachable(median, high, limits, most)]), limits)


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """What mutants did to the labels of n inputs.

    Attributes:
        rate: (n,) share of the used mutants that change the label.
        odds: (n,) log of the mean probability that mutants give all other classes, less that of the label; it follows the rate,
            but has neither steps nor ends, and gradients flow through it.
        used: (n,) mutants used, all or as many as the test needed.
    """

    rate: Tensor
    odds: Tensor
    used: Tensor

    @property
    def rate_odds(self) -> Tensor:
        """The odds (n,) of the rate, half a change added on both sides; their gradient is that of the smooth odds."""
        return self.odds + (torch.logit((self.rate * self.used + 0.5) / (self.used + 1)) - self.odds).detach()


def at_rate(mutants: Mutants, given: Tensor, label: Tensor, change: float) -> Mutants:
    """The mutants at the level where one changes a share `change` of the labels (n,) of clean inputs (n, ...), searched with a few.

    Raises:
        ValueError: no level changes anything.
    """
    few = replace(mutants, seeds=mutants.seeds[:SEARCHED])
    level = level_for(lambda level: float(sensitivity(replace(few, level=level), given, label).rate.mean()), change, mutants.operator)
    return replace(mutants, level=level)


def sensitivity(mutants: Mutants, given: Tensor, label: Tensor, test: Trial | None = None) -> Sensitivity:
    """Run the mutants, by and by if there is a test, and only those inputs further that it has not decided.

    Args:
        mutants: at least one.
        given: (n, ...) the input of their suffix.
        label: (n,) int64 labels of the model itself.
        test: looks after every mutant, and lets inputs go after each group of `GROUP` mutants.
    """
    changes, used = torch.zeros_like(label), torch.zeros_like(label)
    wrong = right = torch.full(label.shape, -torch.inf, device=given.device, dtype=given.dtype)
    rows, tests = torch.arange(label.shape[0], device=label.device), None  # len() would fix the batch size of an exported program
    step = GROUP if test else mutants.suffix.most(LIKELY if torch.compiler.is_compiling() else len(label))
    for start in range(0, len(mutants.seeds), step):
        own, logits = label[rows], mutants.logits(given[rows], slice(start, start + step))
        changed, (lost, kept) = logits.argmax(2) != own, _log_sums(logits, own)
        changes[rows], used[rows] = changes[rows] + changed.sum(0), used[rows] + len(logits)
        wrong = wrong.index_copy(0, rows, wrong[rows].logaddexp(lost))
        right = right.index_copy(0, rows, right[rows].logaddexp(kept))
        if test is not None:
            rows, tests = _undecided(rows, walk_both(changed, test.rates[:, own], test.limits, tests))
    return Sensitivity(changes.to(given.dtype) / used, wrong - right, used)


@torch.no_grad()
def over_all(
    mutants: Mutants, model: nn.Module, taps: Sequence[str], clean: Samples, *, test: Trial | None = None, progress: Progress = silent
) -> tuple[Sensitivity, Tensor, int]:
    """What the mutants did to any number of images, the model's labels (n,) of these, and its number of classes.

    Args:
        mutants: of `model`, whose suffix the taps describe.
        model: takes float images in [0, 1].
        taps: as `suffix_taps` gives them.
        clean: n images.
        test: as for `sensitivity`.
        progress: told of each batch.
    """
    parts, labels, classes, task = [], [], 0, "mutants" if test is None else "mutants, sequentially"
    for images, _ in clean.batches(256):
        seen = trace(model, images.to(device_of(model)), taps)
        parts.append(sensitivity(mutants, mutants.suffix.given(seen), seen.predicted, test))
        labels.append(seen.predicted)
        classes = seen.logits.shape[1]
        progress(task, sum(map(len, labels)), len(clean))
    rate, odds, used = (torch.cat([getattr(part, name) for part in parts]) for name in ("rate", "odds", "used"))
    return Sensitivity(rate, odds, used), torch.cat(labels), classes


def _undecided(rows: Tensor, tests: Walk) -> tuple[Tensor, Walk]:
    still = ~settled(tests)
    return rows[still], tests[still]


def _log_sums(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Logs (n,) of the sums over mutants of 1 - p and of p, the softmax of the label (n,), given logits (k, n, classes)."""
    where = label.expand(len(logits), -1)[..., None]
    own, others = logits.gather(2, where)[..., 0], logits.scatter(2, where, -torch.inf).logsumexp(2)
    total = own.logaddexp(others)
    return (others - total).logsumexp(0), (own - total).logsumexp(0)
