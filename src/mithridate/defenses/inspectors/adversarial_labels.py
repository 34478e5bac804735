"""Where untargeted adversarial examples land: an infected model's are said to pile up on the backdoor's target.

    share_t = adversarial examples of other classes that are called t / adversarial examples of other classes

The largest share is compared with models whose classes each have favorite neighbors but do not agree on one: every row of
the (true class, adversarial class) count table is permuted on its own, many times, and p is how often the largest share
of a permuted table reaches the observed one. A row keeps its counts, so that "cats become dogs" alone is no evidence;
only a class that attracts many others is.

Scope: all-to-one backdoors whose trigger covers the image. Cost: `steps` gradients an image. Known failures: it is
evidence, not proof. Clean models have attractors too (on digits the class 8, with 40 %), so `infected` also asks for a
share of at least `floor`. A patch is seldom found by small changes everywhere: on third-party infected CIFAR-10 models
at 8/255 the top class was rarely the target. Two classes leave nothing to compare: p = 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mithridate.checks import within
from mithridate.data import Samples
from mithridate.nn.ascent import Budget, ascend
from mithridate.nn.modes import device_of, predict
from mithridate.roles import Progress, Verdict, register, silent


@register(
    "inspector",
    scope=("blend",),
    cost="steps gradients per image",
    paper="Mu et al., CVPR 2023, arXiv 2202.06312",
)
@dataclass(frozen=True, kw_only=True)
class AdversarialLabels:
    """Histogram over classes of the labels of untargeted adversarial examples.

    Attributes:
        eps: L-inf radius, in pixel units of [0, 1].
        steps: gradient steps of a quarter of `eps` each.
        limit: images attacked at most, drawn at random.
        alpha: largest p-value called infected, in (0, 1).
        floor: smallest share called infected, in [0, 1].
        simulations: permuted tables behind the p-value, which is at least 1 / (simulations + 1).
        batch_size: images attacked at once.

    Raises:
        ValueError: a field out of its range.
    """

    eps: float = 8 / 255
    steps: int = 10
    limit: int = 1000
    alpha: float = 0.01
    floor: float = 0.5
    simulations: int = 999
    batch_size: int = 256

    def __post_init__(self) -> None:
        within(self, "(0, inf)", "eps")
        within(self, "[1, inf)", "steps", "limit", "simulations", "batch_size")
        within(self, "(0, 1)", "alpha")
        within(self, "[0, 1]", "floor")

    def inspect(self, model: nn.Module, clean: Samples, *, seed: int = 0, progress: Progress = silent) -> Verdict:
        """The verdict; `per_class` (classes,) are the shares, and `evidence["landings"]` (classes, classes) the counts.

        Raises:
            ValueError: no images, labels the model has no logit for, or a model that does not return finite logits.
        """
        if not len(clean):
            raise ValueError("clean must not be empty")
        generator = torch.Generator().manual_seed(seed)
        chosen = clean[torch.randperm(len(clean), generator=generator)[: self.limit]]
        logits = predict(model, chosen, self.batch_size)
        right = chosen[logits.argmax(1) == chosen.labels.cpu()]
        counts = self._landings(model, right, logits.shape[1], progress)
        shares = landing_shares(counts)
        p_value = agreement_p_value(counts, self.simulations, generator)
        top = int(shares.argmax())
        infected = p_value <= self.alpha and float(shares[top]) >= self.floor
        note = f"{float(shares[top]):.0%} of {int(counts.sum())} adversarial examples at eps {self.eps:.3g} land on class {top}"
        return Verdict(infected, top if infected else None, p_value, shares, {"landings": counts}, note)

    def _landings(self, model: nn.Module, samples: Samples, classes: int, progress: Progress) -> Tensor:
        """Counts (classes, classes) of successful adversarial examples by true class and given class."""
        device, budget = device_of(model), Budget(eps=self.eps, steps=self.steps)
        counts = torch.zeros(classes * classes)
        done = 0
        for images, labels in samples.batches(self.batch_size):
            found = ascend(model, images.to(device), labels.to(device), budget)
            cells = (labels.to(device) * classes + found.predicted)[found.fooled].cpu()
            counts += torch.bincount(cells, minlength=len(counts))
            done += len(images)
            progress("adversarial_labels", done, len(samples))
        return counts.view(classes, classes)


def landing_shares(counts: Tensor) -> Tensor:
    """Shares (classes,) of the adversarial examples of other classes that land on each class; 0 where there are none.

    Args:
        counts: (classes, classes) by true class and given class, with a zero diagonal.
    """
    others = counts.sum() - counts.sum(1)
    return counts.sum(0) / others.clamp_min(1)


def agreement_p_value(counts: Tensor, simulations: int, generator: torch.Generator) -> float:
    """How often rows permuted independently, their diagonal left out, give a largest share as large as the observed one.

    Args:
        counts: as for `landing_shares`.
        simulations: number of permuted tables.
        generator: draws the permutations.
    """
    classes = len(counts)
    if classes < 3 or not bool(counts.any()):
        return 1.0
    observed = float(landing_shares(counts).max())
    values = counts.sort(1, descending=True).values[:, : min(classes - 1, int((counts > 0).sum(1).max()))]
    rows = torch.arange(classes)[:, None]
    reached = 0
    for _ in range(simulations):
        place = torch.rand(classes, classes - 1, generator=generator).topk(values.shape[1]).indices
        table = torch.zeros_like(counts).scatter_(1, place + (place >= rows), values)
        reached += float(landing_shares(table).max()) >= observed - 1e-6
    return (1 + reached) / (simulations + 1)
