"""The three views of a model: fitted on clean reference images, then looked at through every population.

Source: Jin et al. 2020, arXiv 2006.14871: model sensitivity, activation space, feature space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mithridate.analysis.projection import principal
from mithridate.data import Samples, to_float
from mithridate.defenses.detectors.activation_space import ActivationSpace, ActivationSpaceScorer
from mithridate.defenses.detectors.kde import KDE, KDEScorer
from mithridate.defenses.detectors.lid import LID, LIDScorer
from mithridate.defenses.detectors.mutation import Mutation, MutationScorer
from mithridate.nn.modes import device_of
from mithridate.nn.taps import Trace, trace, trace_all
from mithridate.roles import Progress, silent
from mithridate.views.analysis import Analysis, Depth, Level, Measure, Population
from mithridate.views.separation import gap, pairs

FACTORS = (0.25, 0.5, 0.75, 1.0, 1.5)  # of the mutation level that the detector chooses
COMPONENTS = 100  # principal components of a layer that are compared
BATCH = 250


def analyse(
    title: str, model: nn.Module, reference: Samples, populations: Sequence[Population], *, seed: int = 0, progress: Progress = silent
) -> Analysis:
    """Everything that the page shows.

    Args:
        title: of the page.
        model: takes float images in [0, 1] and gives logits (n, classes); bit-identical afterwards.
        reference: clean images that none of the populations holds.
        populations: the clean images first, all of different names.
        seed: of the mutants and the permutations.
        progress: told of every step.

    Raises:
        ValueError: two populations of one name, or too few reference images for the detectors.
    """
    if len({each.name for each in populations}) < len(populations):
        raise ValueError(f"populations must have different names, got {', '.join(each.name for each in populations)}")
    steps = iter(range(1, 5))
    levels = tuple(_sensitivity(model, reference, populations, seed))
    progress("views", next(steps), 4, "sensitivity")
    path = ActivationSpace().fit(model, reference, seed=seed).cpu()
    density, dimension = KDE().fit(model, reference, seed=seed).cpu(), LID().fit(model, reference, seed=seed).cpu()
    layers = tuple(dict.fromkeys((*path.layers, *density.layers, *dimension.layers)))
    seen = {each.name: trace_all(model, each.images, layers) for each in populations}
    progress("views", next(steps), 4, "forward passes")
    depths, planes = _path(path, trace_all(model, reference, path.layers), seen)
    measures = (*_sensitive(levels), _switches(depths, seen), *_features(density, dimension, seen))
    progress("views", next(steps), 4, "activation and feature space")
    found = [gap(each.view, each.name, each.values, pair, seed) for each in measures for pair in pairs(populations)]
    found += [gap("activation space", layer, values, pair, seed) for layer, values in planes.items() for pair in pairs(populations)]
    progress("views", next(steps), 4, "distances")
    predicted = {name: each.predicted for name, each in seen.items()}
    return Analysis(title, tuple(populations), levels, depths, predicted, measures, tuple(found), reference.classes)


def _sensitivity(model: nn.Module, reference: Samples, populations: Sequence[Population], seed: int) -> Iterator[Level]:
    """Label-change rates at a few strengths around the one that clean images choose."""
    fitted = Mutation().fit(model, reference, seed=seed)
    for factor in FACTORS:
        scorer = MutationScorer(model, fitted.layers, {**fitted.state_dict(), "level": fitted.level * factor})
        rates = {each.name: _rates(scorer, each.images) for each in populations}
        yield Level(float(scorer.level), factor == 1.0, rates)


@torch.no_grad()
def _rates(scorer: MutationScorer, images: Tensor) -> Tensor:
    device = device_of(scorer.model)
    batches = (to_float(batch.to(device)) for batch in images.split(BATCH))
    return torch.cat([scorer.watch(trace(scorer.model, batch, scorer.layers)).rate.cpu() for batch in batches])


def _path(scorer: ActivationSpaceScorer, known: Trace, seen: Mapping[str, Trace]) -> tuple[tuple[Depth, ...], dict[str, dict[str, Tensor]]]:
    """Each layer of the class path, and the principal components of clean images there, layer by layer and population by population."""
    classes = {name: scorer.path(each) for name, each in seen.items()}
    depths, planes = [], {}
    for i, layer in enumerate(scorer.layers):
        mean, axes = principal(known.activations[layer].flatten(1), COMPONENTS)
        planes[layer] = {name: (each.activations[layer].flatten(1) - mean) @ axes for name, each in seen.items()}
        flat = {name: pad(points[:, :2], (0, max(0, 2 - points.shape[1]))) for name, points in planes[layer].items()}
        depths.append(Depth(layer, {name: each[:, i] for name, each in classes.items()}, flat))
    return tuple(depths), planes


def _sensitive(levels: Sequence[Level]) -> Iterator[Measure]:
    for level in levels:
        name = f"label-change rate, noise {level.level:.2g}"
        yield Measure("sensitivity", name, "adversarial inputs above clean ones, backdoor inputs below", level.rates)


def _switches(depths: Sequence[Depth], seen: Mapping[str, Trace]) -> Measure:
    """How often the class of the neighbors changes on the way to the model's own answer."""
    values = {}
    for name, each in seen.items():
        path = torch.stack([*(depth.classes[name] for depth in depths), each.predicted])
        values[name] = (path[1:] != path[:-1]).sum(0).float()
    return Measure("activation space", "class switches", "malicious inputs switch more, and later", values)


@torch.no_grad()
def _features(density: KDEScorer, dimension: LIDScorer, seen: Mapping[str, Trace]) -> Iterator[Measure]:
    """Density and dimension, each in standard deviations from what is usual for the predicted class."""
    note = "in clean standard deviations from the mean of the predicted class; malicious inputs are"
    yield Measure("feature space", "log density", f"{note} lower", {name: -density.score(each) for name, each in seen.items()})
    rows = {name: dimension.standardized(each) for name, each in seen.items()}
    for i, layer in enumerate(dimension.layers):
        yield Measure("feature space", f"log dimension, {layer}", f"{note} higher", {name: each[:, i] for name, each in rows.items()})
