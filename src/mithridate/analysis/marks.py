"""Triggers reversed one after another while a model is being repaired, until the target is as hard to reach as other classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mithridate.analysis.reversal import Search, reverse
from mithridate.data import Samples
from mithridate.roles import Verdict

GROWN = 2.0  # the search ends when a trigger covers this many times the verdict's median class


def usable(verdict: Verdict | None) -> bool:
    """Whether a verdict names a target and holds reversed triggers."""
    return verdict is not None and verdict.target is not None and {"mask", "pattern"} <= verdict.evidence.keys()


class Marks:
    """The verdict's trigger, and one more for each epoch in which the model still gives in to a small one.

    Args:
        samples: clean images to turn.
        verdict: a `usable` one.
        search: how triggers are searched.
        seed: of the searches and of which image gets which trigger.

    Raises:
        ValueError: the verdict is not usable.
    """

    def __init__(self, samples: Samples, verdict: Verdict, search: Search, seed: int) -> None:
        if verdict.target is None or not usable(verdict):
            raise ValueError(f"verdict must name a target and hold its mask and pattern, got {verdict}")
        self.samples, self.target, self.search = samples, verdict.target, search
        self.limit = GROWN * float(verdict.evidence["mask"].flatten(1).mean(1).median())
        self.generator = torch.Generator().manual_seed(seed)
        self.masks = verdict.evidence["mask"][None, self.target]
        self.patterns = verdict.evidence["pattern"][None, self.target]
        self.epoch, self.searching = -1, True

    def stamp(self, model: nn.Module, images: Tensor, count: int, epoch: int) -> Tensor:
        """Float images (n, c, h, w), the first `count` of them each with a random one of the triggers; searches once an epoch."""
        if epoch > self.epoch and self.searching:
            self._search(model)
        self.epoch = epoch
        drawn = torch.randint(len(self.masks), (count,), generator=self.generator)
        masks, patterns = self.masks[drawn].to(images), self.patterns[drawn].to(images)
        return torch.cat([torch.lerp(images[:count], patterns, masks.expand_as(patterns)), images[count:]])

    def _search(self, model: nn.Module) -> None:
        mask, pattern = reverse(model, self.samples, self.search, self.generator, targets=[self.target])
        self.searching = float(mask.mean()) <= self.limit
        if self.searching:
            self.masks, self.patterns = torch.cat([self.masks, mask]), torch.cat([self.patterns, pattern])
