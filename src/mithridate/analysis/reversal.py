"""The smallest trigger towards every class at once: a mask and a pattern that turn all images into it.

For each class t a mask m in [0, 1] (1, h, w) and a pattern p in [0, 1] (c, h, w) minimize, over images x of other classes,
    cross-entropy(f((1 - m) x + m p), t) + weight_t |m|_1 / (h w)
and weight_t rises while the trigger works and falls while it does not. All classes share one forward pass. A high learning
rate from a random start matters: a low one misses sharp triggers such as checkerboards, which only exact pixels open.

Source: Wang et al., "Neural Cleanse", IEEE S&P 2019, section IV (equations 2 and 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mithridate.checks import within
from mithridate.data import Samples, to_float
from mithridate.nn.modes import device_of, fast_layout, frozen, has_fast_bf16, predict
from mithridate.roles import Progress, silent

MEMORY = 0.9  # of the running success rate
STAMPED, LEAST = 320, 8  # stamped images per step above which many classes get fewer images each, but never fewer than this
START, RAISE = 10.0, 1.05  # first weight of the mask area, and its growth per successful step


@dataclass(frozen=True, kw_only=True)
class Search:
    """How triggers are searched.

    Attributes:
        steps: most gradient steps.
        batch_size: most images per step, shared by all classes; fewer where there are more than 20 classes.
        learning_rate: of Adam, on the logits of mask and pattern.
        success: share of images the trigger has to turn while it shrinks, in (0, 1).
        patience: steps without a mask at least 1 % smaller after which a class is settled.
        restarts: random starts; each class keeps the smallest working trigger of all of them.

    Raises:
        ValueError: a field out of its range.
    """

    steps: int = 400
    batch_size: int = 16
    learning_rate: float = 0.4
    success: float = 0.99
    patience: int = 100
    restarts: int = 1

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "steps", "batch_size", "patience", "restarts")
        within(self, "(0, 1)", "success")
        within(self, "(0, inf)", "learning_rate")


def reverse(
    model: nn.Module,
    seen: Samples,
    search: Search,
    generator: torch.Generator,
    progress: Progress = silent,
    targets: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Mask (k, 1, h, w) and pattern (k, c, h, w) of the smallest working trigger of each of k target classes, on the CPU.

    A class for which none was found has a mask of ones. The model is in eval mode meanwhile and bit-identical afterwards.

    Args:
        model: takes float images in [0, 1] and gives logits (n, classes).
        seen: images to turn; their labels only say which ones each class leaves out.
        search: how triggers are searched.
        generator: on the CPU; draws the start and the batches.
        progress: is told of every step.
        targets: the k classes to reach; all of them when not given.

    Raises:
        ValueError: no images, or a model that does not return finite logits.
    """
    goals = torch.tensor(range(predict(model, seen.images[:1]).shape[1]) if targets is None else targets)
    found = []
    with frozen(model), torch.enable_grad():
        for start in range(search.restarts):
            climb = _Search(search, model, seen, goals, generator)
            climb.run(lambda task, done, total, note="", start=start: progress(task, start * total + done, search.restarts * total, note))
            found.append((climb.mask.cpu(), climb.pattern.cpu()))
    masks, patterns = (torch.stack(each) for each in zip(*found, strict=True))
    rows = torch.arange(len(goals))
    best = masks.mean((2, 3, 4)).argmin(0)
    return masks[best, rows], patterns[best, rows]


def transfer_rates(model: nn.Module, held: Samples, mask: Tensor, pattern: Tensor) -> Tensor:
    """Share (classes,) of held-out images of other classes that each trigger turns into its class; 0 where there are none.

    Args:
        model: as for `reverse`.
        held: images that the search has not seen.
        mask: (classes, 1, h, w) in [0, 1].
        pattern: (classes, c, h, w) in [0, 1].
    """
    images, labels, rates = to_float(held.images).cpu(), held.labels.cpu(), torch.zeros(len(mask))
    for label, (m, p) in enumerate(zip(mask, pattern, strict=True)):
        others = images[labels != label]
        if len(others):
            rates[label] = (predict(model, (1 - m) * others + m * p).argmax(1) == label).float().mean()
    return rates


class _Search:
    """The state of one search: raw mask and pattern, weights of the mask area, and the smallest working trigger so far."""

    def __init__(self, search: Search, model: nn.Module, seen: Samples, goals: Tensor, generator: torch.Generator) -> None:
        self.search, self.model, self.seen, self.generator = search, model, seen, generator
        self.device, shape, classes = device_of(model), seen.images.shape[1:], len(goals)
        self.goals, fast = goals.to(self.device), has_fast_bf16(self.device)
        self.layout = fast_layout(model, to_float(seen.images[:2]).to(self.device), bf16=True) if fast else None
        raw_mask = torch.randn(classes, 1, *shape[1:], generator=generator) - 2
        raw_pattern = torch.randn(classes, *shape, generator=generator)
        self.raw = [tensor.to(self.device).requires_grad_() for tensor in (raw_mask, raw_pattern)]
        self.mask, self.pattern = torch.ones_like(self.raw[0]).detach(), self.raw[1].detach().sigmoid()
        self.weight = torch.full((classes,), START, device=self.device)
        self.area, self.success = torch.ones(classes, device=self.device), torch.zeros(classes, device=self.device)
        self.batch_size = min(search.batch_size, max(LEAST, STAMPED // classes))
        self.settled = torch.full((classes,), search.steps, device=self.device)

    def run(self, progress: Progress) -> None:
        """All steps, or fewer if every class settles."""
        adam = torch.optim.Adam(self.raw, lr=self.search.learning_rate, betas=(0.5, 0.9))
        for step in range(self.search.steps):
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
            progress("reversing triggers", step + 1, self.search.steps, f"{len(live)} classes left")

    def _attack(self, mask: Tensor, pattern: Tensor, live: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy and success rate (live,) of each live trigger on one random batch, its own class left out."""
        chosen = self.seen[torch.randperm(len(self.seen), generator=self.generator)[: self.batch_size]]
        images, labels = to_float(chosen.images).to(self.device), chosen.labels.to(self.device)
        stamped = ((1 - mask)[:, None] * images + (mask * pattern)[:, None]).flatten(0, 1)
        if self.layout is not None:
            stamped = stamped.contiguous(memory_format=self.layout)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.layout is not None):
            logits = self.model(stamped).float()
        goal = self.goals[live].repeat_interleave(len(images))
        other = (labels != self.goals[live][:, None]).float()
        share = other / other.sum(1, keepdim=True).clamp_min(1)
        cost = cross_entropy(logits, goal, reduction="none").view_as(share)
        return (cost * share).sum(1), ((logits.argmax(1) == goal).view_as(share) * share).sum(1)

    def _update(self, step: int, live: Tensor, hit: Tensor, trigger: tuple[Tensor, Tensor, Tensor]) -> None:
        """Track success, keep smaller working triggers, and steer the weights."""
        mask, pattern, area = trigger
        self.success[live] = MEMORY * self.success[live] + (1 - MEMORY) * hit
        works = self.success[live] / (1 - MEMORY ** (step + 1)) >= self.search.success
        smaller = works & (hit >= self.search.success) & (area < self.area[live])  # the running rate alone lags behind the mask
        kept = live[smaller]
        much = kept[area[smaller] < 0.99 * self.area[kept]]
        self.settled[much] = step + self.search.patience
        self.mask[kept], self.pattern[kept], self.area[kept] = mask[smaller], pattern[smaller], area[smaller]
        self.weight[live] *= torch.where(works, RAISE, RAISE**-1.5)
