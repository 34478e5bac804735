"""A model together with the detectors that watch it: what an attacker who knows the defense attacks.

It answers like the model, so every attack runs on it unchanged; an attack that knows it also sees how far above the
thresholds an input's scores are, and which way to go to lower them. One forward pass serves the logits and the scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mithridate.calibrate import Threshold
from mithridate.nn.scorers import TraceScorer
from mithridate.nn.taps import Trace, last_hidden, trace, trace_all
from mithridate.roles import Scorer


class Guarded(nn.Module):
    """A model, and each fitted scorer with its threshold; an input is detected when any score lies above its threshold.

    A `Guard` gives all of them: `Guarded(guard.model, [(s, guard.threshold(t)) for t, s in zip(guard.specs, guard.fitted())])`.

    Args:
        model: takes float images in [0, 1] and gives logits (n, classes); referenced, not copied.
        watchers: fitted scorers, each with its threshold.
        clean: float images (m, c, h, w) in [0, 1] that the model answers rightly for the most part, on any device; needed for
            scorers that are not differentiable, whose layers an attack then pulls towards those of clean images.

    Raises:
        ValueError: a scorer that is no `nn.Module`, or one that is not differentiable while there are no clean images.
    """

    def __init__(self, model: nn.Module, watchers: Sequence[tuple[Scorer, Threshold]] = (), clean: Tensor | None = None) -> None:
        super().__init__()
        self.model = model
        self.scorers = nn.ModuleList(_module(scorer) for scorer, _ in watchers)
        self.thresholds = tuple(threshold for _, threshold in watchers)
        opaque = [scorer for scorer, _ in watchers if not scorer.differentiable]
        if opaque and (clean is None or not len(clean)):
            raise ValueError("clean must hold images when a scorer is not differentiable, got none")
        self.pulled: tuple[str, ...] = ()
        self.pool: Trace | None = None
        if opaque and clean is not None:
            spare = (last_hidden(model, clean[:1]),)
            self.pulled = tuple(dict.fromkeys(layer for scorer in opaque for layer in getattr(scorer, "layers", spare)))
            self.pool = trace_all(model, clean, self.pulled)
        read = (layer for scorer in self.scorers if isinstance(scorer, TraceScorer) and scorer.model is model for layer in scorer.layers)
        self.layers = tuple(dict.fromkeys((*self.pulled, *read)))

    def forward(self, images: Tensor) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> logits (n, classes) of the model."""
        logits: Tensor = self.model(images)
        return logits

    def look(self, images: Tensor) -> Trace:
        """One forward pass: logits, and the activations that the scorers read, under the names they have in the model.

        Raises:
            ValueError: a model that does not return finite logits.
        """
        seen = trace(self, images, [_inside(layer) for layer in self.layers])
        return Trace(images, seen.logits, {layer: seen.activations[_inside(layer)] for layer in self.layers})

    def excess(self, seen: Trace) -> Tensor:
        """How far (n,) the scores of what was seen lie above their thresholds, at worst; detected where positive.

        Without scorers it is -1. The gradient flows through the differentiable scorers only.
        """
        return self._worst(seen, list(zip(self.scorers, self.thresholds, strict=True)))

    def lure(self, seen: Trace, classes: Tensor) -> Tensor:
        """What (n,) to lower so that no detector sees the input; always differentiable.

        The excess itself where scorers are differentiable. For the others, the squared distance, in all their layers, to
        the nearest clean image that the model gives the class (n,) which the attack leads to.
        """
        watchers = [pair for pair in zip(self.scorers, self.thresholds, strict=True) if pair[0].differentiable]
        total = self._worst(seen, watchers) + 0 * seen.logits[:, 0]  # so that the gradient passes the logits, where it is counted
        if self.pool is None:
            return total
        member = self.pool.predicted.to(classes.device) == classes[:, None]
        member |= ~member.any(1, keepdim=True)
        apart = torch.stack([_apart(seen.activations[layer], self.pool.activations[layer]) for layer in self.pulled]).sum(0)
        return total + apart.masked_fill(~member, torch.inf).amin(1)

    def _worst(self, seen: Trace, watchers: Sequence[tuple[nn.Module, Threshold]]) -> Tensor:
        if not watchers:
            return torch.full((len(seen.logits),), -1.0, dtype=seen.logits.dtype, device=seen.logits.device)
        return torch.stack([self._score(scorer, seen) - _cut(threshold, seen) for scorer, threshold in watchers]).amax(0)

    def _score(self, scorer: nn.Module, seen: Trace) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(scorer.differentiable)):
            if isinstance(scorer, TraceScorer) and scorer.model is self.model:  # it reads what was seen, so one pass is enough
                return scorer.score(seen)
            score: Tensor = scorer(seen.images)
        return score


def _module(scorer: Scorer) -> nn.Module:
    if not isinstance(scorer, nn.Module):
        raise ValueError(f"watchers must hold scorers that are nn.Module, got {type(scorer).__name__}")
    return scorer


def _inside(layer: str) -> str:
    """The name here of a layer of the model."""
    name, at, side = layer.partition("@")
    return ".".join(filter(None, ("model", name))) + at + side


def _cut(threshold: Threshold, seen: Trace) -> Tensor:
    cut = threshold.cut.to(seen.logits)
    return cut[seen.predicted] if cut.ndim else cut


def _apart(found: Tensor, pool: Tensor) -> Tensor:
    """Squared distances (n, m) of activations (n, d) to those of clean images (m, d), in units of their mean variance times d."""
    pool = pool.to(found)
    center = pool.mean(0)  # far from the origin, the squares below would lose the digits that differ
    found, pool = found - center, pool - center
    spread = pool.var(0, correction=0).sum().clamp_min(torch.finfo(found.dtype).tiny)
    squared = found.square().sum(1, keepdim=True) + pool.square().sum(1) - 2 * found @ pool.T
    return squared.clamp_min(0) / spread
