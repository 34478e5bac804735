"""Several detectors as one: each score becomes a p-value among clean scores, and the p-values become one.

    score(x) = -log fuse(p_1(x), ..., p_k(x))    with p_j(x) = share of clean inputs that detector j finds as unusual as x

The clean scores behind p_j are cross-fitted, with an exponential tail beyond the highest. By the harmonic mean (Wilson 2019, PNAS
116(4)), p <= k min p_j: nobody can outvote an alarm. The fused score is in nats; whoever uses it sets its one threshold on clean images.

Scope: what any of its detectors finds. Cost: a forward pass for all, two more of `squeezing`; `folds` + 1 times their fitting,
but for the passes. Known failures: inputs that look clean to all; many blind detectors cost the others some power.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mithridate.analysis.fusion import RULES, log_survival, tail_scale
from mithridate.checks import one_of, within
from mithridate.crossfit import cross_scores
from mithridate.data import Samples
from mithridate.nn.modes import device_of
from mithridate.nn.scorers import TraceScorer, rebuild
from mithridate.nn.taps import Trace, remembered
from mithridate.roles import Progress, register, silent
from mithridate.spec import parse


class UnifiedScorer(TraceScorer):
    """Scores by the fused p-value of its members.

    Buffers: `about` uint8 bytes of a JSON text, the rule, and specification and layers of each of k members; `clean` (k, n)
    their clean scores, ascending; `scale` (k,) of their tails; `scorers.0.bank` and the like, the buffers of the members.

    Raises:
        ValueError: buffers that do not describe fitted detectors of this model.
    """

    about: Tensor
    clean: Tensor
    scale: Tensor

    def __init__(self, model: nn.Module, layers: Sequence[str], buffers: Mapping[str, Tensor]) -> None:
        super().__init__(model, layers, {name: value for name, value in buffers.items() if not name.startswith("scorers.")})
        self.rule, members = _read(self.about)
        if self.clean.ndim != 2 or self.clean.shape[1] < 2 or not len(members) == len(self.clean) == self.scale.numel():
            raise ValueError(f"clean must have shape ({len(members)}, n > 1) and scale ({len(members)},), got {tuple(self.clean.shape)}")
        self.specs, self.scorers = tuple(members), nn.ModuleList()
        for i, (spec, taps) in enumerate(members.items()):
            own = {name.removeprefix(f"scorers.{i}."): value for name, value in buffers.items() if name.startswith(f"scorers.{i}.")}
            self.scorers.append(rebuild(parse(spec, "detector").scorer, model, taps, own))
        self.differentiable = all(scorer.differentiable for scorer in self._members())

    def score(self, seen: Trace) -> Tensor:
        """Scores (n,) from a trace: minus the log of the fused p-value."""
        return self.explained(seen)[0]

    def explained(self, seen: Trace) -> tuple[Tensor, dict[str, Tensor]]:
        """Scores (n,), and the p-values (n,) of each member in (0, 1), not below the 1 / (n + 1) that n clean scores support."""
        scores = torch.stack([scorer.score(seen) for scorer in self._members()])
        log_p, least = log_survival(scores, self.clean, self.scale), 1 / (self.clean.shape[1] + 1)
        return -RULES[self.rule](log_p).to(scores), dict(zip(self.specs, log_p.detach().exp().clamp_min(least).to(scores), strict=True))

    def _members(self) -> list[TraceScorer]:
        return [scorer for scorer in self.scorers if isinstance(scorer, TraceScorer)]


@register(
    "detector", scope=("patch", "blend", "evasion"), cost="3 passes; 6 times their fitting", paper="Jin et al. 2020, arXiv 2006.14871"
)
@dataclass(frozen=True, kw_only=True)
class Unified:
    """Any set of detectors under one threshold, by their fused p-values.

    Attributes:
        detectors: their specifications, all different; none is itself unified.
        rule: how p-values are fused: "harmonic" (mean), "minimum", or "cauchy", under which one p-value near 1 silences the others.
        folds: parts of the clean images in cross-fitting, at least 2.

    Raises:
        ValueError: a field out of its range, or a specification of no detector.
    """

    scorer: ClassVar[type[TraceScorer]] = UnifiedScorer
    detectors: tuple[str, ...] = ("mutation", "activation_space", "kde", "lid", "mahalanobis", "squeezing")
    rule: str = "harmonic"
    folds: int = 5

    def __post_init__(self) -> None:
        within(self, "[2, inf)", "folds")
        one_of(self, tuple(RULES), "rule")
        _check(self.detectors)

    @property
    def learns(self) -> tuple[str, ...]:
        """The evasions that its detectors learn from."""
        return tuple(name for spec in self.detectors for name in getattr(parse(spec, "detector"), "learns", ()))

    def fit(self, model: nn.Module, clean: Samples, *, seed: int = 0, progress: Progress = silent) -> UnifiedScorer:
        """A scorer whose members are fitted on all of `clean`, and calibrated on it by cross-fitting.

        Raises:
            ValueError: fewer clean images than folds, or what a detector says to the rest.
        """
        if len(clean) < self.folds:
            raise ValueError(f"clean must hold at least {self.folds} images, as many as folds, got {len(clean)}")
        members: dict[str, tuple[str, ...]] = {}
        known, buffers, clean = list[Tensor](), dict[str, Tensor](), remembered(model, clean)
        for i, spec in enumerate(self.detectors):
            detector = parse(spec, "detector")
            scorer = detector.fit(model, clean, seed=seed)
            known.append(cross_scores(detector, model, clean, folds=self.folds, seed=seed))
            progress("unified", i + 1, len(self.detectors))
            members[spec] = scorer.layers
            buffers |= {f"scorers.{i}.{name}": value for name, value in scorer.state_dict().items()}
        ordered, told = torch.stack(known).sort(1).values, json.dumps({"rule": self.rule, "members": members}).encode()
        buffers |= {"about": torch.tensor(list(told), dtype=torch.uint8), "clean": ordered, "scale": tail_scale(ordered).to(ordered)}
        return UnifiedScorer(model, tuple(dict.fromkeys(sum(members.values(), ()))), buffers).to(device_of(model))


def _check(specs: Sequence[str]) -> None:
    if not specs or len(set(specs)) < len(specs):
        raise ValueError(f"detectors must hold at least one, and none twice, got {', '.join(specs) or 'none'}")
    for spec in specs:
        if spec.partition(":")[0].strip() == __name__.rpartition(".")[2]:
            raise ValueError(f"detectors must not be unified themselves, got {spec!r}")
        if not isinstance(getattr(parse(spec, "detector"), "scorer", None), type):
            raise ValueError(f"detectors must have a scorer that can be rebuilt, got {spec!r}")


def _read(about: Tensor) -> tuple[str, dict[str, list[str]]]:
    """The rule, and the layers of each member by its specification, from bytes that may be anyone's."""
    try:
        told: dict[str, Any] = json.loads(bytes(about.tolist()))
        rule, members = told["rule"], {str(spec): [str(tap) for tap in taps] for spec, taps in told["members"].items()}
        RULES[rule]
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"about must be the JSON text of a unified scorer ({type(error).__name__}: {error})") from error
    _check(tuple(members))
    return rule, members
