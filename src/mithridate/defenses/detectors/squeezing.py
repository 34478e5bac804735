"""Feature squeezing: what an adversarial perturbation did to the answer, a median filter undoes.

    score(x) = max_z [u(s_z) + u(s_z - o_z)],   o_z = f_z(x) - f_c(x),   s_z = the same after squeezing,   c = predicted class

z are the other classes, and u puts a value in standard deviations above the mean over clean images called c, for each z. The
first term is high where squeezing changes the answer, as close to the boundary; the second where it moves the logits far from
it, as with confident adversarial examples, which stay what they are. Squeezing is the median of 2 by 2 pixels, of which there are
two: the logits f are averaged over the lower and the upper one. Where most of an image is detail, so that too few clean images
keep their labels, pixels go only half of the way to the median, or a quarter, or an eighth.

The paper compares probabilities, which say nothing where they are near 1; log odds for each pair of classes are of Roth et al.,
who add noise instead. Scope: adversarial examples in the pixels. Cost: two forward passes for each input. Known failures:
triggers that survive squeezing; perturbations that are smooth, or made with the squeezing in mind (He et al. 2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mithridate.analysis.reference import kept, representatives
from mithridate.checks import within
from mithridate.data import Samples, to_float
from mithridate.nn.modes import device_of
from mithridate.nn.scorers import TraceScorer
from mithridate.nn.taps import Trace, trace, trace_all
from mithridate.roles import Progress, register, silent

LEAST = 0.125  # of the way to the median


class SqueezingScorer(TraceScorer):
    """Scores by how squeezing moves the logits.

    Buffers: `mean` and `std` (2, classes, classes): of the log odds after squeezing and of their change, of clean images given
    the first class, for the second; `amount`, a scalar, how far pixels go to their median.
    """

    mean: Tensor
    std: Tensor
    amount: Tensor

    def score(self, seen: Trace) -> Tensor:
        """Scores (n,) from a trace: standard deviations above what is usual, added up, for the class where they are most."""
        told, answer = squeezed_odds(self.model, seen, self.amount), seen.predicted
        above = ((told - self.mean[:, answer]) / self.std[:, answer]).sum(0)
        return above.scatter(1, answer[:, None], -torch.inf).amax(1)


@register(
    "detector",
    scope=("evasion",),
    cost="2 forward passes over the clean images, and for each input",
    paper="Xu et al., NDSS 2018, arXiv 1704.01155; Roth et al., ICML 2019, arXiv 1902.04818",
)
@dataclass(frozen=True, kw_only=True)
class Squeezing:
    """How far a median filter moves the logits from the model's answer.

    Attributes:
        keep: share of clean images that must keep their label, so that squeezing goes no further; in (0, 1).
        least: a class with fewer clean images is judged by all classes' images together.
        reference: clean images that are looked at, at most; the classes are balanced as far as they go.

    Raises:
        ValueError: a field out of its range.
    """

    scorer: ClassVar[type[TraceScorer]] = SqueezingScorer
    keep: float = 0.8
    least: int = 20
    reference: int = 2000

    def __post_init__(self) -> None:
        within(self, "(0, 1)", "keep")
        within(self, "[2, inf)", "least")
        within(self, f"[{self.least}, inf)", "reference")

    @torch.no_grad()
    def fit(self, model: nn.Module, clean: Samples, *, seed: int = 0, progress: Progress = silent) -> SqueezingScorer:
        """A scorer that knows how squeezing moves the logits of clean images; `seed` draws which, where there are more than it looks at.

        Raises:
            ValueError: too few clean images, or a model that does not return finite logits of at least two classes.
        """
        if len(clean) < self.least:
            raise ValueError(f"clean must hold at least {self.least} images, got {len(clean)}")
        seen = trace_all(model, kept(clean, self.reference, seed))
        classes = seen.logits.shape[1]
        if classes < 2:
            raise ValueError(f"model must have at least 2 logits, got {classes}")
        amount, odds = torch.ones(()), self._odds(model, seen, torch.ones(()))
        while _stay(odds) < self.keep and amount > LEAST:
            amount = amount / 2
            odds = self._odds(model, seen, amount)
        progress("squeezing", 1, 1)
        groups = [odds[:, rows] for rows in representatives(seen.predicted, classes, self.least)]
        mean, std = torch.stack([own.mean(1) for own in groups], 1), torch.stack([own.std(1) for own in groups], 1)
        return SqueezingScorer(model, (), {"mean": mean, "std": std.clamp_min(1e-3), "amount": amount}).to(device_of(model))

    def _odds(self, model: nn.Module, seen: Trace, amount: Tensor) -> Tensor:
        parts = seen.batches(256, device_of(model))
        return torch.cat([squeezed_odds(model, part, amount).cpu() for part in parts], 1)


def _stay(odds: Tensor) -> float:
    """Share of the images that keep their label: no other class has positive odds."""
    return float((odds[0] <= 0).all(1).float().mean())


def squeezed_odds(model: nn.Module, seen: Trace, amount: Tensor) -> Tensor:
    """Log odds (2, n, classes) against the predicted class: of squeezed images, and how much they are above the original ones.

    Args:
        model: takes float images in [0, 1].
        seen: trace of n images.
        amount: a scalar, how far pixels go to their median, in (0, 1].
    """
    images = to_float(seen.images)
    squeezed = torch.stack([trace(model, images.lerp(median, amount.to(images))).logits for median in medians(images)]).mean(0)
    before, after = (logits - logits.gather(1, seen.predicted[:, None]) for logits in (seen.logits, squeezed))
    return torch.stack([after, after - before])


def medians(images: Tensor) -> tuple[Tensor, Tensor]:
    """The lower and the upper median (n, c, h, w) of each pixel and the three right of and below it; the border counts again."""
    wide = pad(images, (0, 1, 0, 1), mode="replicate")
    upper, lower = (wide[..., rows, :].unfold(3, 2, 1).unbind(4) for rows in (slice(0, -1), slice(1, None)))
    least, most = torch.minimum(*upper).maximum(torch.minimum(*lower)), torch.maximum(*upper).minimum(torch.maximum(*lower))
    return torch.minimum(least, most), torch.maximum(least, most)
