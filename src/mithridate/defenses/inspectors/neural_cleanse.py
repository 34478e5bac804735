"""The smallest patch that turns every image into a class: a backdoor's target needs a far smaller one than the other classes.

Triggers towards all classes are reversed in one batched search (`mithridate.analysis.reversal`). Two tests, joined by
Bonferroni, judge the logarithms of their mask areas: the smallest against the other classes, as in the paper but with a
simulated null in place of "index > 2"; and against the areas that clean networks need, which finds backdoors whose side
effects make several classes small. The first assumes that the log areas of a clean network are independent and normal; the
second that they follow CLEAN_MEAN and CLEAN_DEVIATION, a rough prior and not a law.

Scope: all-to-one patches and strong additive patterns. Known failures: all-to-all backdoors, triggers that depend on the
image, and large or smooth ones. Cost: restarts * steps * batch_size * classes gradients, fewer where classes settle early.
Source: Wang et al., "Neural Cleanse", IEEE S&P 2019, sections IV and V.A.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mithridate.analysis.outliers import below_p_value, either, low_p_value, low_scores
from mithridate.analysis.reversal import Search, reverse, transfer_rates
from mithridate.checks import within
from mithridate.data import Samples
from mithridate.roles import Progress, Verdict, register, silent

CLEAN_MEAN, CLEAN_DEVIATION = math.log(0.05), 0.5  # of log(mask area / image area), over classes of clean networks
FLOOR = 0.2  # least spread of log areas believed: clean networks' classes differ by about this much


@register(
    "inspector",
    scope=("patch", "blend"),
    cost="restarts * steps * batch_size gradients per class",
    paper="Wang et al., IEEE S&P 2019",
)
@dataclass(frozen=True, kw_only=True)
class NeuralCleanse(Search):
    """Reversed triggers of all classes at once, and whether one of them is too small to be natural.

    The fields of the search come first (`mithridate.analysis.reversal.Search`); one start in several misses a sharp trigger.

    Attributes:
        restarts: random starts; each class keeps its smallest trigger.
        transfer: least success on images that the search has not seen, in [0, 1], for a verdict of infected.
        limit: images used at most, drawn at random; one in five is held out.
        alpha: largest p-value called infected, in (0, 1).

    Raises:
        ValueError: a field out of its range.
    """

    restarts: int = 2
    transfer: float = 0.7
    limit: int = 1000
    alpha: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "[10, inf)", "limit")
        within(self, "(0, 1)", "alpha")
        within(self, "[0, 1]", "transfer")

    def inspect(self, model: nn.Module, clean: Samples, *, seed: int = 0, progress: Progress = silent) -> Verdict:
        """The verdict; `evidence` holds mask (k, 1, h, w), pattern (k, c, h, w), norms (k,) in pixels and held-out success (k,).

        Raises:
            ValueError: fewer than ten images, or a model that does not return finite logits.
        """
        if len(clean) < 10:
            raise ValueError(f"clean must hold at least 10 images, got {len(clean)}")
        generator = torch.Generator().manual_seed(seed)
        chosen = clean[torch.randperm(len(clean), generator=generator)[: self.limit]]
        held, seen = chosen[: len(chosen) // 5], chosen[len(chosen) // 5 :]
        mask, pattern = reverse(model, seen, self, generator, progress)
        return self._judge(mask, pattern, transfer_rates(model, held, mask, pattern))

    def _judge(self, mask: Tensor, pattern: Tensor, success: Tensor) -> Verdict:
        norms = mask.flatten(1).sum(1)
        areas = (norms / mask[0].numel()).clamp_min(1e-6).log()
        p_value = either(low_p_value(areas, FLOOR), below_p_value(areas, CLEAN_MEAN, CLEAN_DEVIATION))
        top = int(areas.argmin())
        infected = p_value <= self.alpha and float(success[top]) >= self.transfer
        evidence = {"mask": mask, "pattern": pattern, "norms": norms, "success": success}
        note = (
            f"a trigger of {float(norms[top]):.1f} pixels ({float(areas[top].exp()):.1%} of the image) turns {float(success[top]):.0%}"
            f" of unseen images into class {top}; the median class needs {float(norms.median()):.1f} pixels"
        )
        return Verdict(infected, top if infected else None, p_value, low_scores(areas, FLOOR).float(), evidence, note)
