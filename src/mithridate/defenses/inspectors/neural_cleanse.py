"""The smallest patch that turns every image into a class: a backdoor's target needs a far smaller one than the other classes.

For each class t a mask m in [0, 1] (1, h, w) and a pattern p in [0, 1] (c, h, w) minimize, over images x of other classes,
    cross-entropy(f((1 - m) x + m p), t) + weight_t |m|_1 / (h w)
and weight_t rises while the trigger works and falls while it does not. All classes share one forward pass. A high learning
rate from a random start matters: a low one misses sharp triggers such as checkerboards, which only exact pixels open.

Two tests, joined by Bonferroni, compare the logarithms of the mask areas: the smallest against the other classes, as in the
paper but with a simulated null in place of "index > 2"; and against areas that clean networks need, which finds
backdoors whose side effects make several classes small. The first assumes that log areas of a clean network are independent
and normal; the second that they follow CLEAN_MEAN and CLEAN_DEVIATION: a rough prior, not a law.

Scope: all-to-one patches and strong additive patterns. Known failures: all-to-all backdoors, triggers that depend on the
image, and large or smooth ones. Cost: steps * batch_size * classes gradients, fewer where classes settle early.
Source: Wang et al., "Neural Cleanse", IEEE S&P 2019, sections IV and V.A.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mithridate.analysis.outliers import below_p_value, either, low_p_value, low_scores
from mithridate.data import Samples, to_float
from mithridate.nn.modes import device_of, frozen, predict
from mithridate.roles import Progress, Verdict, register, silent

CLEAN_MEAN, CLEAN_DEVIATION = math.log(0.05), 0.5  # of log(mask area / image area), over classes of clean networks
FLOOR = 0.25  # least spread of log areas believed: clean networks' classes differ by about this much
MEMORY = 0.9  # of the running success rate
START, RAISE = 10.0, 1.05  # first weight of the mask area, and its growth per successful step


@register(
    "inspector",
    scope=("patch", "blend"),
    cost="steps * batch_size gradients per class",
    paper="Wang et al., IEEE S&P 2019",
)
@dataclass(frozen=True, kw_only=True)
class NeuralCleanse:
    """Reversed triggers of all classes at once, and whether one of them is too small to be natural.

    Attributes:
        steps: most gradient steps.
        batch_size: images per step, shared by all classes.
        learning_rate: of Adam, on the logits of mask and pattern.
        success: share of images the trigger has to turn while it shrinks, in (0, 1).
        patience: steps without a mask at least 1 % smaller after which a class is settled.
        transfer: least success on images that the search has not seen, in [0, 1], for a verdict of infected.
        limit: images used at most, drawn at random; one in five is held out.
        alpha: largest p-value called infected, in (0, 1).
        fast: gradients in bf16 and channels-last; the held-out success is taken in full precision all the same.

    Raises:
        ValueError: a field out of its range.
    """

    steps: int = 400
    batch_size: int = 16
    learning_rate: float = 0.4
    success: float = 0.99
    patience: int = 100
    transfer: float = 0.7
    limit: int = 1000
    alpha: float = 0.05
    fast: bool = True

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 1), ("patience", 1), ("limit", 10)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("success", "alpha"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in (0, 1), got {getattr(self, name)}")
        if not 0 <= self.transfer <= 1:
            raise ValueError(f"transfer must lie in [0, 1], got {self.transfer}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive and finite, got {self.learning_rate}")

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
        classes = predict(model, seen.images[:1]).shape[1]
        with frozen(model), torch.enable_grad():
            found = _Search(self, model, seen, classes, generator)
            found.run(progress)
        return self._judge(found.mask.cpu(), found.pattern.cpu(), _success(model, held, found.mask, found.pattern))

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


class _Search:
    """The state of one search: raw mask and pattern, weights of the mask area, and the smallest working trigger so far."""

    def __init__(self, method: NeuralCleanse, model: nn.Module, seen: Samples, classes: int, generator: torch.Generator) -> None:
        self.method, self.model, self.seen, self.generator = method, model, seen, generator
        self.device, shape = device_of(model), seen.images.shape[1:]
        raw_mask = torch.randn(classes, 1, *shape[1:], generator=generator) - 2
        raw_pattern = torch.randn(classes, *shape, generator=generator)
        self.raw = [tensor.to(self.device).requires_grad_() for tensor in (raw_mask, raw_pattern)]
        self.mask, self.pattern = torch.ones_like(self.raw[0]).detach(), self.raw[1].detach().sigmoid()
        self.weight = torch.full((classes,), START, device=self.device)
        self.area, self.success = torch.ones(classes, device=self.device), torch.zeros(classes, device=self.device)
        self.settled = torch.full((classes,), method.steps, device=self.device)

    def run(self, progress: Progress) -> None:
        """All steps, or fewer if every class settles."""
        adam = torch.optim.Adam(self.raw, lr=self.method.learning_rate, betas=(0.5, 0.9))
        for step in range(self.method.steps):
            live = (step < self.settled).nonzero().flatten()
            if not len(live):
                break
            mask, pattern = (raw[live].sigmoid() for raw in self.raw)
            area = mask.mean((1, 2, 3))
            cost, hit = self._attack(mask, pattern, live)
            gradients = torch.autograd.grad((cost + self.weight[live] * area).sum(), self.raw)
            self._update(step, live, hit, (mask.detach(), pattern.detach(), area.detach()))
            self.raw[0].grad, self.raw[1].grad = gradients
            adam.step()
            progress("neural_cleanse", step + 1, self.method.steps, f"{len(live)} classes left")

    def _attack(self, mask: Tensor, pattern: Tensor, live: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy and success rate (live,) of each live trigger on one random batch, its own class left out."""
        chosen = self.seen[torch.randperm(len(self.seen), generator=self.generator)[: self.method.batch_size]]
        images, labels = to_float(chosen.images).to(self.device), chosen.labels.to(self.device)
        stamped = ((1 - mask)[:, None] * images + (mask * pattern)[:, None]).flatten(0, 1)
        if self.method.fast:
            stamped = stamped.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.method.fast):
            logits = self.model(stamped).float()
        goal = live.repeat_interleave(len(images))
        other = (labels != live[:, None]).float()
        share = other / other.sum(1, keepdim=True).clamp_min(1)
        cost = cross_entropy(logits, goal, reduction="none").view_as(share)
        return (cost * share).sum(1), ((logits.argmax(1) == goal).view_as(share) * share).sum(1)

    def _update(self, step: int, live: Tensor, hit: Tensor, trigger: tuple[Tensor, Tensor, Tensor]) -> None:
        """Track success, keep smaller working triggers, and steer the weights."""
        mask, pattern, area = trigger
        self.success[live] = MEMORY * self.success[live] + (1 - MEMORY) * hit
        works = self.success[live] / (1 - MEMORY ** (step + 1)) >= self.method.success
        smaller = works & (hit >= self.method.success) & (area < self.area[live])  # the running rate alone lags behind the mask
        kept = live[smaller]
        much = kept[area[smaller] < 0.99 * self.area[kept]]
        self.settled[much] = step + self.method.patience
        self.mask[kept], self.pattern[kept], self.area[kept] = mask[smaller], pattern[smaller], area[smaller]
        self.weight[live] *= torch.where(works, RAISE, RAISE**-1.5)


@torch.no_grad()
def _success(model: nn.Module, held: Samples, mask: Tensor, pattern: Tensor) -> Tensor:
    """Share (classes,) of held-out images of other classes that each trigger turns into its class; 0 where there are none."""
    images, rates = to_float(held.images).to(mask.device), torch.zeros(len(mask))
    for label, (m, p) in enumerate(zip(mask, pattern, strict=True)):
        others = images[held.labels.to(mask.device) != label]
        if len(others):
            rates[label] = (predict(model, (1 - m) * others + m * p).argmax(1) == label).float().mean()
    return rates
