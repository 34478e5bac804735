"""Model sensitivity: adversarial inputs change label more than clean ones when the weights are mutated, backdoor inputs less.

    odds(x) = log mean_i (1 - p_i(c|x)) - log mean_i p_i(c|x),   c = label of the unmutated model, p_i = softmax of mutant i
    score(x) = (odds - m_c) / h_c above the median m_c, (m_c - odds) / l_c below

The paper's label-change rate is discrete and often 0; the odds follow it, but have neither ties nor ends. h_c and l_c are the
distances of the 90 % and the 10 % quantile from the median, as shares of a normal distribution's, over clean images called c. One
level serves both tails: where a mutant changes a share of the clean labels, 0.1 (what Wang et al. let a mutant lose) or, where
changes are counted, 0.3 (Jin et al. at v = 0.65 on MNIST). `sequential` tests the changes, mutant by mutant, for the class's median
rate against its extreme clean rates, until one side is accepted or both are refused; the score is that of the mutants used.

Scope: dominant backdoors, whose trigger outweighs all else once it is well learned, and adversarial examples near the boundary.
Cost: small products where the mutated layers end the model in a row, else a pass a mutant. Known failures: triggers hardly
learned or weakened by covers (adaptive blend); confident adversarial examples where the classifier is one layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mithridate.analysis.sensitivity import Mutants, Sensitivity, Trial, at_rate, over_all, sensitivity, stock
from mithridate.analysis.two_sided import deviation, scale
from mithridate.checks import one_of, within
from mithridate.data import Samples
from mithridate.nn.modes import device_of
from mithridate.nn.mutants import OPERATORS
from mithridate.nn.scorers import TraceScorer
from mithridate.nn.suffix import Suffix, suffix_taps
from mithridate.nn.taps import Trace, trace
from mithridate.roles import Progress, register, silent

SEARCHED = 256  # images that the level is searched on


class MutationScorer(TraceScorer):
    """Scores by how sure the mutants still are of the model's prediction.

    Buffers: `seeds` (mutants,); `level`; `operator`, its index; `together`, whether mutants run at once; `counted`, whether the
    rate is scored; `limits` (2,) and `rates` (4, classes) of the test, zeros without; `scales` (3, classes) of what is scored.
    """

    seeds: Tensor
    level: Tensor
    operator: Tensor
    together: Tensor
    counted: Tensor
    limits: Tensor
    rates: Tensor
    scales: Tensor

    def settle(self) -> None:
        """Read what is no tensor to compute with; mutants are drawn when they are needed."""
        self.kind = (list(OPERATORS)[int(self.operator)], float(self.level), self.seeds, bool(self.together))
        self.rate, self.ends, self.stock = bool(self.counted), (float(self.limits[0]), float(self.limits[1])), stock()

    def score(self, seen: Trace) -> Tensor:
        """Scores (n,) from a trace: normal deviations from the predicted class's median, at least 0; gradients are the odds'."""
        found = self.watch(seen)
        return deviation(found.rate_odds if self.rate else found.odds, seen.predicted, self.scales)

    def watch(self, seen: Trace) -> Sensitivity:
        """What the mutants did to each input, and how many of them it took."""
        mutants = Mutants(Suffix.of(self.model, self.layers), *self.kind).keeping(self.stock)
        return sensitivity(mutants, mutants.suffix.given(seen), seen.predicted, Trial(self.rates, self.ends) if any(self.ends) else None)


@register(
    "detector",
    scope=("evasion",),
    cost="no pass but small products where the mutated layers end the model in a row, else `mutants` passes",
    paper="Jin et al. 2020, arXiv 2006.14871; operators also of Wang et al., ICSE 2019",
)
@dataclass(frozen=True, kw_only=True)
class Mutation:
    """Label changes under mutated weights, more or fewer than clean inputs have.

    Attributes:
        operator: `fuzz` (noise on all weights, Jin et al.), or mMutant's `gf` (fuzzing), `ws` (shuffling), `ns` (switch), `nai` (inverse).
        layers: linear layers and convolutions to mutate; none for the linear ones that see one vector an image and end the model.
        mutants: how many there are.
        change: share of clean labels that a mutant changes, which sets the level; None for 0.1, or 0.3 for `rate` or `sequential`.
        level: strength, if it is not to be searched: noise in standard deviations of a layer's weights, or the share mutated.
        statistic: the odds of the probabilities, or the paper's label-change rate.
        sequential: use no more mutants for an input than a sequential test needs.
        alpha: its wanted share of usual inputs that are called unusual, on each side.
        beta: its wanted share of unusual inputs that are called usual, on each side.
        least: a class with fewer clean images is judged by all classes' images together.

    Raises:
        ValueError: a field out of its range.
    """

    scorer: ClassVar[type[TraceScorer]] = MutationScorer
    operator: Literal["fuzz", "gf", "ws", "ns", "nai"] = "fuzz"
    layers: tuple[str, ...] = ()
    mutants: int = 100
    change: float | None = None
    level: float | None = None
    statistic: Literal["odds", "rate"] = "odds"
    sequential: bool = False
    alpha: float = 0.05
    beta: float = 0.05
    least: int = 20

    def __post_init__(self) -> None:
        one_of(self, list(OPERATORS), "operator")
        one_of(self, ("odds", "rate"), "statistic")
        within(self, "[2, inf)", "mutants", "least")
        within(self, "(0, 1)", "change")
        within(self, "(0, 0.5)", "alpha", "beta")
        within(self, "(0, inf)" if self.operator == "fuzz" else "(0, 1]", "level")

    @torch.no_grad()
    def fit(self, model: nn.Module, clean: Samples, *, seed: int = 0, progress: Progress = silent) -> MutationScorer:
        """A scorer whose mutants are drawn from `seed`, and whose level, test and scales are those of the clean images.

        Raises:
            ValueError: too few clean images, unsuitable layers, mutants that change no label, or logits that are not finite.
        """
        if len(clean) < self.least:
            raise ValueError(f"clean must hold at least {self.least} images, got {len(clean)}")
        taps, mutants = self._mutants(model, clean, torch.Generator().manual_seed(seed))
        found, label, classes = over_all(mutants, model, taps, clean, progress=progress)
        trial = Trial.of(found, label, (self.alpha, self.beta), classes=classes, least=self.least) if self.sequential else None
        found = over_all(mutants, model, taps, clean, test=trial, progress=progress)[0] if trial else found
        scales = scale(found.rate_odds if self.statistic == "rate" else found.odds, label, classes=classes, least=self.least)
        ends, rates = (trial.limits, trial.rates) if trial else ((0.0, 0.0), torch.zeros(4, classes))
        numbers = {"operator": list(OPERATORS).index(self.operator), "together": mutants.together, "counted": self.statistic == "rate"}
        buffers = {name: torch.tensor(value) for name, value in {**numbers, "level": mutants.level, "limits": ends}.items()}
        return MutationScorer(model, taps, buffers | {"seeds": mutants.seeds, "scales": scales, "rates": rates}).to(scales)

    def _mutants(self, model: nn.Module, clean: Samples, generator: torch.Generator) -> tuple[tuple[str, ...], Mutants]:
        """The taps of what has to run, and the mutants, at a level that is given or found on some clean images."""
        taps, some = suffix_taps(model, clean.images[:1], self.layers), torch.randperm(len(clean), generator=generator)[:SEARCHED]
        suffix, seen = Suffix.of(model, taps), trace(model, next(clean[some].batches(SEARCHED))[0].to(device_of(model)), taps)
        given, seeds = suffix.given(seen), torch.randint(2**31, (self.mutants,), generator=generator)
        mutants = Mutants(suffix, self.operator, self.level or 0.0, seeds, suffix.can_batch(given[:2]))
        change = self.change or (0.3 if self.sequential or self.statistic == "rate" else 0.1)
        return taps, (mutants if self.level else at_rate(mutants, given, seen.predicted, change)).keeping(stock())
