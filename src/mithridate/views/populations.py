"""Where the inputs of the views come from: clean images, attacks that are run on them, a known trigger, or a stranger's folder."""

from __future__ import annotations

import torch
from torch import nn

from mithridate.data import Samples
from mithridate.judge import Key
from mithridate.nn.modes import device_of, predict
from mithridate.roles import Evasion
from mithridate.spec import to_spec
from mithridate.threats.attack import attack
from mithridate.threats.dose import wanted
from mithridate.threats.poison import stamp
from mithridate.views.analysis import Population

LEAST = 10  # inputs that a distribution needs
BATCH = 250


def benign(clean: Samples) -> Population:
    """Clean images as they are, the ones that the model gets wrong among them."""
    return Population("clean images", "benign", clean.images, clean.labels.cpu(), len(clean))


def evaded(model: nn.Module, evasion: Evasion, clean: Samples, *, seed: int = 0) -> Population:
    """Adversarial examples of the images that the model gets right; those that do not fool it are left out.

    Raises:
        ValueError: too few that fool it.
    """
    device = device_of(model)
    right = clean[predict(model, clean).argmax(1) == clean.labels.cpu()]
    made = [attack(evasion, model, x.to(device), y.to(device), seed=seed) for x, y in right.batches(BATCH)]
    if not made:
        raise ValueError("clean must hold images that the model classifies rightly, got none")
    images, fooled = torch.cat([each.images.cpu() for each in made]), torch.cat([each.fooled.cpu() for each in made])
    return _enough(Population(to_spec(evasion), "adversarial", images[fooled], right.labels.cpu()[fooled], len(right)))


def triggered(model: nn.Module, key: Key, clean: Samples) -> Population:
    """Images with a known trigger, of other classes than its target; those that do not get there are left out.

    Raises:
        ValueError: too few that get there.
    """
    ours = clean[key.counts(clean.labels)]
    made = stamp(key.trigger, ours)
    reached = predict(model, made).argmax(1) == wanted(key.target, ours.labels.cpu())
    return _enough(Population(key.spec, "backdoor", made.images.cpu()[reached], ours.labels.cpu()[reached], len(ours)))


def suspected(name: str, inputs: Samples) -> Population:
    """Inputs of which nobody knows what they are; their labels are not believed.

    Raises:
        ValueError: too few.
    """
    return _enough(Population(name, "suspect", inputs.images, torch.full((len(inputs),), -1), len(inputs)))


def _enough(made: Population) -> Population:
    if len(made.images) < LEAST:
        raise ValueError(f"{made.name} must leave at least {LEAST} inputs that reach their goal, got {len(made.images)} of {made.tried}")
    return made
