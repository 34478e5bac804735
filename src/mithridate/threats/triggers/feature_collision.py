"""Feature collision: target-class images whose features are those of stamped images of other classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mithridate.checks import within
from mithridate.data import Samples
from mithridate.nn.ascent import project
from mithridate.nn.modes import frozen
from mithridate.roles import Progress, register, silent
from mithridate.threats.stamping.clean_label import CleanLabelAttacker, CleanLabelPatch
from mithridate.threats.stamping.patches import paste
from mithridate.threats.stamping.surrogate import draw, exact, features, hidden_layer, known_features


@register(
    "trigger",
    scope=("patch", "clean-label", "crafted"),
    cost="surrogate_epochs of training, steps gradients per poisoned image",
    paper="Shafahi et al., NeurIPS 2018, arXiv 1804.00792; Saha et al., AAAI 2020, arXiv 1910.00033",
)
@dataclass(frozen=True, kw_only=True)
class FeatureCollision(CleanLabelAttacker):
    """Poisoned images keep their true label and, to the eye, their content; their features are those of stamped images.

    The fields of patch and perturbation come first (`stamping.clean_label.CleanLabelAttacker`).

    Attributes:
        eps: L-inf radius of the perturbation around the watermarked image, in pixel units of [0, 1].
        opacity: share of the patch that shows in poisoned images, in [0, 1]; 0 hides it altogether.
        partners: stamped images that each poisoned image may collide with, of which it takes the nearest.
        samples: images of other classes that are stamped to be collided with.
        layer: layer whose features collide, as in `model.named_modules()`; empty for the last hidden one.

    Source: Saha et al. 2020, algorithm 1 (hidden triggers: collide with stamped images, radius 16/255); Shafahi et al. 2018,
    sections 2.1 and 4 (collision; watermark of 30 %). Both attack models of which only the last layer is trained anew. Against a
    model trained from scratch, published success is 0 to 3 %; a larger `opacity` is the lever that is left, and costs its secrecy.
    """

    eps: float = 16 / 255
    step: float = 1 / 255
    steps: int = 40
    opacity: float = 0.3
    partners: int = 8
    samples: int = 500
    layer: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "[0, 1]", "opacity")
        within(self, "[1, inf)", "partners", "samples")

    def craft(self, clean: Samples, target: int, *, seed: int = 0, progress: Progress = silent) -> CleanLabelPatch:
        """The patch, with the surrogate and the features of stamped images behind it to poison with.

        Raises:
            ValueError: fewer than `samples` images of other classes, or a target, surrogate, layer or patch that does not fit.
        """
        self.check(clean, target)
        patch = self.patch(clean)
        others = torch.tensor([label for label in range(len(clean.classes)) if label != target])
        stamped = self._stamped(draw(clean, others, self.samples, torch.Generator().manual_seed(seed)), patch)
        model = self.model(clean, self.layer, seed=seed, progress=progress)
        layer = hidden_layer(model, self.layer, stamped[:1])
        aims = known_features(model, stamped, layer)

        def disturb(images: Tensor, generator: torch.Generator) -> Tensor:
            marked = torch.lerp(exact(images), self._stamped(exact(images), patch), self.opacity)
            return self.collide(model, marked, self._nearest(known_features(model, marked, layer), aims, generator), layer)

        return self.trigger(clean, patch, disturb)

    def collide(self, model: nn.Module, images: Tensor, aims: Tensor, layer: str) -> Tensor:
        """Float32 images (n, c, h, w) in [0, 1], perturbed within `eps` so that their features approach `aims` (n, d)."""
        found = images
        with frozen(model), torch.enable_grad():
            for _ in range(self.steps):
                found = found.detach().requires_grad_()
                distance = (features(model, found, layer) - aims).square().sum()
                slope = torch.autograd.grad(distance, found)[0]
                found = project(found.detach() - self.step * slope.sign(), images, self.budget())
        return found.detach()

    def _stamped(self, images: Tensor, patch: Tensor) -> Tensor:
        return paste(images, patch, self.corner, self.margin)

    def _nearest(self, own: Tensor, aims: Tensor, generator: torch.Generator) -> Tensor:
        """For each of the features (n, d), the nearest of `partners` drawn at random from `aims` (m, d)."""
        drawn = aims[torch.randint(len(aims), (len(own), self.partners), generator=generator).to(aims.device)]
        nearest = (drawn - own[:, None]).square().sum(2).argmin(1)
        return drawn[torch.arange(len(own), device=own.device), nearest]
