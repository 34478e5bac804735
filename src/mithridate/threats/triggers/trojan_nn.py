"""TrojanNN: a patch that drives a few neurons of the attacker's model far above what they ever show."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mithridate.checks import within
from mithridate.data import Samples
from mithridate.roles import Progress, register, silent
from mithridate.threats.stamping.fitted import PatchFitter, PatchTrigger
from mithridate.threats.stamping.surrogate import draw, features, hidden_layer, known_features


@register("trigger", scope=("patch", "crafted"), cost="surrogate_epochs of training, steps x 64 gradients", paper="Liu et al., NDSS 2018")
@dataclass(frozen=True, kw_only=True)
class TrojanNN(PatchFitter):
    """A patch fitted to raise the neurons that weigh most in the next layer.

    Attributes:
        layer: linear layer or convolution whose inputs are the neurons; empty for the one that makes the logits.
        neurons: how many of them.
        activation: value each of them shall reach; 100 is never reached, so that the patch climbs as far as it can.
        samples: clean images the patch is tried on.

    Source: Liu et al. 2018, section IV.A. Number of neurons, activation and layer are BackdoorBench's. The paper ranks neurons by
    the weights that lead into them; here, as in TrojanZoo, by those that lead on, which any layer has, and among those that the
    samples stir. The paper retrains a finished model on reversed inputs; here the patch only poisons data. Behind average pooling
    a patch of 3 x 3 pixels hardly moves a neuron; at 8 x 8 the first one rises two to three times above its mean.
    """

    neurons: int = 2
    activation: float = 100.0
    samples: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "[1, inf)", "neurons", "samples")
        within(self, "(0, inf)", "activation")

    def craft(self, clean: Samples, target: int, *, seed: int = 0, progress: Progress = silent) -> PatchTrigger:
        """The patch, in float32 on the samples' device; the target only has to be a class.

        Raises:
            ValueError: fewer than `samples` images, an unknown layer, more neurons than it has, or a patch that does not fit.
        """
        self.check(clean, target)
        generator = torch.Generator().manual_seed(seed)
        images = draw(clean, torch.arange(len(clean.classes)), self.samples, generator)
        model = self.model(clean, self.layer, seed=seed, progress=progress)
        tap, chosen = self.choose(model, images)

        def shortfall(stamped: Tensor) -> Tensor:
            return (features(model, stamped, tap)[:, chosen] - self.activation).square().mean()

        return self.fit(model, shortfall, images, generator, progress)

    def choose(self, model: nn.Module, images: Tensor) -> tuple[str, Tensor]:
        """The tap that holds the neurons, and which of its (d,) activations they are, the strongest first.

        Raises:
            ValueError: a layer that is no linear layer or convolution of the model, or has fewer such neurons.
        """
        name = hidden_layer(model, self.layer, images[:1]).removesuffix("@input")
        module = dict(model.named_modules()).get(name)
        if not isinstance(module, nn.Linear | nn.Conv2d):
            known = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
            raise ValueError(f"layer must be one of {', '.join(known)}, got {self.layer!r}")
        seen = known_features(model, images, f"{name}@input")
        stirred = seen.amax(0) > seen.amin(0)
        if self.neurons > int(stirred.sum()):
            raise ValueError(f"neurons must be at most {int(stirred.sum())}, as many as {name} has that respond, got {self.neurons}")
        return f"{name}@input", _strength(module).where(stirred, -1.0).topk(self.neurons).indices


def _strength(layer: nn.Linear | nn.Conv2d) -> Tensor:
    """Sum of the absolute weights that each input (d,) of a layer has in it."""
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    grouped: Tensor = layer.weight.detach().abs().unflatten(0, (groups, -1))  # (groups, outputs, inputs, ...)
    return grouped.transpose(1, 2).flatten(2).sum(2).flatten()
