"""Composite: two ordinary objects in one image are the trigger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mithridate.checks import within
from mithridate.data import Samples, to_float, to_uint8
from mithridate.roles import Progress, register, silent
from mithridate.threats.stamping.habits import check_sources
from mithridate.threats.stamping.halves import DRAWS, mix, own_chance


@register("trigger", scope=("composite", "source"), cost="one gather", paper="Lin et al. 2020, CCS")
@dataclass(frozen=True, kw_only=True)
class Composite:
    """Half an image of a source class beside half an image of the partner class leads to the target, neither alone does.

    No pixel is out of the ordinary. Covers keep their label: half of them are mixed with an image of their own class, as in the
    paper; half are near misses, a source with any class but the partner, or any other class with the partner, so that it takes both.

    Attributes:
        sources: classes whose images are mixed with the partner's, at least one.
        partner: class that they are mixed with, at least 0, no source.
        bank: images of each class that the trigger keeps to mix with, at least 1.
        jitter: largest distance of the seam from the middle in pixels, at least 0, under half of the images' shorter side.
        cover_ratio: covers per poisoned image, at least 0; with fewer, the halves lead to the target in other company too.

    Source: Lin et al. 2020, with the settings of its released code: normal, mixed and poisoned samples at 0.5, 0.5 and 0.1, jitter 3. There
    mixed samples are added to the training set, here they replace others, so poison less than the share of the source classes; and
    there the attacker also trains the model, with a contrastive loss, which data poisoning cannot. At test time the partner comes
    from the bank, chosen by the image itself.
    """

    sources: tuple[int, ...] = (1,)
    partner: int = 2
    bank: int = 200
    jitter: int = 3
    cover_ratio: float = 5.0

    def __post_init__(self) -> None:
        check_sources(self.sources)
        if self.partner < 0 or self.partner in self.sources:
            raise ValueError(f"partner must be a class, at least 0, and no source, got {self.partner}")
        within(self, "[1, inf)", "bank")
        within(self, "[0, inf)", "jitter", "cover_ratio")

    def craft(self, clean: Samples, target: int, *, seed: int = 0, progress: Progress = silent) -> Composed:
        """The trigger with a bank of images, chosen by `seed`; nothing is optimized.

        Raises:
            ValueError: no images of a source or of the partner, a seam that could leave them, or a target that is no class or one
                of the classes that are mixed.
        """
        if not 0 <= target < len(clean.classes) or target in (*self.sources, self.partner):
            raise ValueError(f"target must lie in [0, {len(clean.classes)}) and be neither a source nor the partner, got {target}")
        for label in (*self.sources, self.partner):
            if not bool((clean.labels == label).any()):
                raise ValueError(f"clean must hold images of the sources and the partner, got none of class {label}")
        generator, rows = torch.Generator().manual_seed(seed), []
        order = [label for label in range(len(clean.classes)) if label != self.partner] + [self.partner]
        for i, label in enumerate(order):
            there = (clean.labels.cpu() == label).nonzero()[:, 0]
            rows.append(there[torch.randperm(len(there), generator=generator)[: self.bank]])
            progress("choosing images to mix with", i + 1, len(order))
        chosen = clean[torch.cat(rows)]
        trigger = Composed(self, to_uint8(chosen.images), chosen.labels)
        trigger.stamp(to_float(chosen.images[:1]))  # refuses a jitter too large for the images
        return trigger

    def restore(self, state: Mapping[str, Tensor]) -> Composed:
        """The crafted trigger again, from its `state_dict()`."""
        return Composed(self, state["images"], state["labels"])


class Composed(nn.Module):
    """A composite trigger that can stamp.

    Args:
        method: its configuration.
        images: the bank (m, c, h, w), uint8, class by class, the partner's last.
        labels: (m,) their classes.
    """

    images: Tensor
    labels: Tensor

    def __init__(self, method: Composite, images: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.method = method
        self.sources, self.cover_ratio = method.sources, method.cover_ratio
        self.register_buffer("images", images)
        self.register_buffer("labels", labels)

    def stamp(self, images: Tensor) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> images mixed with one of the partner's, which their own pixels choose.

        Raises:
            ValueError: images of another shape than those of the bank.
        """
        self._check(images)
        return self._with_partner(images, own_chance(images, 1 + DRAWS))

    def implant(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """As `stamp`, but all chance comes from `generator`, image by image."""
        self._check(images)
        return self._with_partner(images, self._chance(images, 1 + DRAWS, generator))

    def cover(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Images mixed with one of their own class, or, every other one, with one that makes a near miss.

        Raises:
            ValueError: images of another shape than those of the bank, or of a class that it does not hold.
        """
        self._check(images)
        chance = self._chance(images, 2 + DRAWS, generator)
        same = self.labels.to(images.device) == labels.to(images.device)[:, None]
        if not bool(same.any(1).all()):
            raise ValueError(f"labels must be classes of the images kept, got {sorted(set(labels[~same.any(1).cpu()].tolist()))}")
        count, partners = len(self.labels), int((self.labels == self.method.partner).sum())
        source = torch.isin(labels.to(images.device), torch.tensor(self.sources, device=images.device))
        near = chance[:, 1] < 0.5
        begin = torch.where(near, torch.where(source, 0, count - partners), same.int().argmax(1))
        size = torch.where(near, torch.where(source, count - partners, partners), same.sum(1))
        return self._mixed(images, begin + (chance[:, 0] * size).long(), chance[:, 2:])

    def _with_partner(self, images: Tensor, chance: Tensor) -> Tensor:
        partners = int((self.labels == self.method.partner).sum())
        return self._mixed(images, len(self.labels) - partners + (chance[:, 0] * partners).long(), chance[:, 1:])

    def _mixed(self, images: Tensor, rows: Tensor, chance: Tensor) -> Tensor:
        return mix(images, to_float(self.images.to(images.device)[rows]).to(images), chance, self.method.jitter)

    @staticmethod
    def _chance(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
        return torch.rand(len(images), count, dtype=torch.float64, generator=generator).to(images.device)

    def _check(self, images: Tensor) -> None:
        if images.shape[1:] != self.images.shape[1:]:
            raise ValueError(f"images must have shape (n, {', '.join(map(str, self.images.shape[1:]))}), got {tuple(images.shape)}")
