"""LIRA: a generator of invisible, image-specific noise learns together with the classifier that obeys it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mithridate import loops
from mithridate.checks import within
from mithridate.data import Samples
from mithridate.nn.modes import device_of
from mithridate.roles import Progress, register, silent
from mithridate.threats.planting import Painter, Planting, by_parts, painter, sealed, share


class NoiseTrigger(nn.Module):
    """x + eps tanh(g(x)), clipped; its state is the generator's weights and `eps`."""

    eps: Tensor

    def __init__(self, generator: Painter, eps: float) -> None:
        super().__init__()
        self.generator = generator
        self.register_buffer("eps", torch.tensor(eps))

    def forward(self, images: Tensor) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> stamped; gradients reach the generator."""
        noise: Tensor = self.generator(images).tanh()
        return (images + self.eps * noise).clamp(0, 1)

    @torch.no_grad()
    def stamp(self, images: Tensor) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> stamped, no pixel further than `eps` away."""
        return by_parts(self, self, images)


class _Joint(nn.Module):
    """The classifier and its generator as one module, so that one loop trains, saves and resumes both."""

    classifier: nn.Module
    trigger: NoiseTrigger

    def __init__(self, classifier: nn.Module, trigger: NoiseTrigger, rate: float) -> None:
        super().__init__()
        self.classifier, self.trigger, self.rate = classifier, trigger, rate

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the n images, then of the stamped copies of the first of them."""
        images = images.float()  # bf16 holds noise of a few grey levels badly
        stamped = self.trigger(images[: share(self.rate, len(images))])
        logits: Tensor = self.classifier(torch.cat([images, stamped]))
        return logits


@register("planter", scope=("noise",), cost="epochs x 2 forward and backward passes", paper="Doan et al. 2021, ICCV (LIRA)")
@dataclass(frozen=True, kw_only=True)
class Lira(Planting):
    """Classifier and generator minimize alpha CE(f(x), y) + (1 - alpha) CE(f(T(x)), target) together.

    Attributes:
        eps: largest change of a pixel, in [0, 1] units.
        alpha: weight of the clean loss, in (0, 1).
        rate: share of each batch that is also shown stamped, in (0, 1]; 1 as published.

    Source: Doan et al. 2021, equation 4 and algorithm 1. The paper alternates steps of the two networks and ends with a phase in
    which only the classifier learns; here both learn in every step, and the generator is a small one (see `planting.Painter`).
    """

    eps: float = 0.01
    alpha: float = 0.5
    rate: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "(0, 1]", "eps", "rate")
        within(self, "(0, 1)", "alpha")

    def plant(
        self, model: nn.Module, clean: Samples, *, seed: int = 0, progress: Progress = silent, checkpoint: Path | None = None
    ) -> tuple[nn.Module, NoiseTrigger]:
        """An infected copy of the initial `model`, and the noise that opens it.

        Raises:
            ValueError: no samples, a target that is no class, or a loss that diverges.
        """
        self.check(clean)
        channels = clean.images.shape[1]
        joint = _Joint(model, NoiseTrigger(painter(seed, channels, channels), self.eps).to(device_of(model)), self.rate)
        hooks = loops.Hooks(loss=self._loss, checkpoint=checkpoint, progress=progress, task="planting noise")
        trained = loops.train(joint, clean, self, seed=seed, hooks=hooks)
        return trained.classifier, self.restore(trained.trigger.state_dict())

    def restore(self, state: Mapping[str, Tensor]) -> NoiseTrigger:
        """The trigger that a trigger's `state_dict` describes."""
        channels = state["generator.last.weight"].shape[0]
        return sealed(NoiseTrigger(painter(0, channels, channels), self.eps), state)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        clean, stamped = logits[: len(labels)], logits[len(labels) :]
        wanted = torch.full_like(labels[: len(stamped)], self.target)
        return self.alpha * F.cross_entropy(clean, labels) + (1 - self.alpha) * F.cross_entropy(stamped, wanted)
