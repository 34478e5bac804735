"""Anti-backdoor learning: isolate what is learned too fast, learn the rest, and unlearn what was isolated.

Stage one trains under a loss that will not go below gamma, so that ordinary images are held up and poisoned ones are not, and ranks
the images by their loss. Stage two trains on the rest, and ascends on the isolated ones: L = E_rest[CE] - E_isolated[CE].
Carried further, each on by default: a gate, an isolated share that follows from the losses, an ascent with a bound (docs/adr/0015).

Scope: poisons that are easier to learn than the classes. Cost: as plain training of the same epochs, and a pass. Known failures:
poison that is no easier, such as two classes in one image: the gate stays shut (docs/adr/0016).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import nn

from mithridate import loops
from mithridate.analysis.early import Early, learn_early, train_steadily
from mithridate.analysis.isolation import at_best, isolate, suspicion
from mithridate.analysis.unlearning import Sides, divide, share_right, take_back, train_against
from mithridate.checks import one_of, within
from mithridate.data import Samples
from mithridate.reporting import Learned, Watch, told, unwatched
from mithridate.roles import Progress, register, silent

PUBLISHED = {"gate": False, "adaptive": False, "bounded": False}


@register("trainer", scope=("fast",), cost="epochs x one forward and backward pass", paper="Li et al. 2021, arXiv 2110.11571")
@dataclass(frozen=True, kw_only=True)
class ABL(loops.Recipe):
    """Isolate early, train on the rest, unlearn the isolated.

    Attributes:
        isolation_epochs: how many of the epochs isolate, at the peak learning rate and the paper's weight decay, 1e-4.
        loss: what holds losses up, `lga` (local gradient ascent) or `flooding`; their gradients agree.
        per_sample: hold each sample, as the paper's text says, poisoned ones included; else the mean of a batch, as released code does.
        gamma: the loss to hold, in nats.
        augment: shift and flip in stage one, too.
        fresh: begin stage two with the initial weights; else go on from what stage one, which holds images up, has made of them.
        ratio: share of the samples that is isolated; with `adaptive`, that is unlearned.
        unlearn: `joint` (in each step of stage two, the paper's formula), `sequential` (afterwards, as released code does) or `nothing`.
        unlearn_epochs: of the sequential ascent; a bounded one goes on until its rule says stop, at most four times as long.
        unlearn_lr: its learning rate.
        gate: unlearn nothing unless a label has a population that is learned far faster than others.
        adaptive: isolate that whole population in place of `ratio`.
        bounded: a loss that has an end, clipped gradients, other images beside the isolated, and the best state by held-out ones.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"epochs": 14, "isolation_epochs": 4, "schedule": "cosine", "weight_decay": 5e-4, "fresh": True},
        "formula": PUBLISHED,
        "published": PUBLISHED | {"unlearn": "sequential"},
        "filter": {"unlearn": "nothing"},  # what is isolated is only left out
        "leaderboard": PUBLISHED
        | {"unlearn": "sequential", "epochs": 70, "isolation_epochs": 10, "loss": "flooding", "batch_size": 64, "flip": True},
    }

    epochs: int = 100
    schedule: Literal["cosine", "step", "constant"] = "step"
    weight_decay: float = 1e-4
    isolation_epochs: int = 20
    loss: Literal["lga", "flooding"] = "lga"
    per_sample: bool = False
    gamma: float = 0.5
    augment: bool = False
    fresh: bool = False
    ratio: float = 0.01
    unlearn: Literal["joint", "sequential", "nothing"] = "joint"
    unlearn_epochs: int = 5
    unlearn_lr: float = 5e-4
    gate: bool = True
    adaptive: bool = True
    bounded: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, f"[1, {self.epochs})", "isolation_epochs")
        within(self, "[1, inf)", "unlearn_epochs")
        within(self, "(0, inf)", "unlearn_lr")
        within(self, "(0, 0.5]", "ratio")
        one_of(self, ("joint", "sequential", "nothing"), "unlearn")
        self._early()

    def train(
        self, model: nn.Module, samples: Samples, *, seed: int = 0, progress: Progress = silent, checkpoint: Path | None = None
    ) -> nn.Module:
        """The model that `learn` gives."""
        return self.learn(model, samples, seed=seed, progress=progress, checkpoint=checkpoint).model

    def learn(
        self,
        model: nn.Module,
        samples: Samples,
        *,
        seed: int = 0,
        progress: Progress = silent,
        checkpoint: Path | None = None,
        watch: Watch = unwatched,
    ) -> Learned:
        """A trained copy of the initial `model`, and what was isolated; stage one has a checkpoint of its own beside the given one.

        Raises:
            ValueError: no samples, or training diverges at a hundredth of the learning rate, too.
        """
        first = None if checkpoint is None else checkpoint.with_name(f"{checkpoint.stem}-isolating.safetensors")
        hooks = loops.Hooks(progress=progress, checkpoint=first, task="isolating", after=told(watch, "isolating"))
        early = learn_early(model, samples, self._early(), seed=seed, hooks=hooks)
        each = early.final_losses(samples, progress=progress)
        found = isolate(each, early.impartial, samples.labels.cpu(), self.ratio, gate=self.gate, adaptive=self.adaptive)
        hooks = replace(hooks, checkpoint=checkpoint, task="fine-tuning", tag=f" {self}", after=told(watch, "fine-tuning"))
        easiest = at_best(each, early.impartial)
        sides = divide(samples, found.bad, easiest, self.ratio, seed, hold=self.bounded and self.unlearn != "nothing")
        start, least = model if self.fresh else early.model, share_right(early.model, sides.held)
        trained, said = self._second(start, sides, least, seed, hooks, watch)
        return Learned(trained, suspicion(easiest), found.bad, early.losses, (*early.notes, found.note, *said), early.doubt)

    def _second(
        self, start: nn.Module, sides: Sides, least: float, seed: int, hooks: loops.Hooks, watch: Watch
    ) -> tuple[nn.Module, tuple[str, ...]]:
        """Train on all that is not bad, and unlearn what is, if held-out accuracy stays at least so high."""
        unlearns = self.unlearn != "nothing" and len(sides.bad) > 0
        tuning = self._part(epochs=self.epochs - self.isolation_epochs)
        if self.unlearn == "joint" and unlearns:
            return train_against(start, sides, tuning, least=least if self.bounded else None, seed=seed, hooks=hooks)
        tuned, notes = train_steadily(start, sides.rest, tuning, seed=seed, hooks=hooks)
        if not unlearns:
            return tuned, notes
        recipe = self._part(epochs=self.unlearn_epochs, lr=self.unlearn_lr, schedule="constant", pad=0, flip=False)
        own = loops.Hooks(progress=hooks.progress, task="unlearning", after=told(watch, "unlearning"))
        model, note = take_back(tuned, sides, recipe, bounded=self.bounded, seed=seed, hooks=own)
        return model, (*notes, note)

    def _early(self) -> Early:
        plainly = {} if self.augment else {"pad": 0, "flip": False}
        part = self._part(epochs=self.isolation_epochs, schedule="constant", weight_decay=Early.weight_decay, **plainly)
        return Early(**vars(part), loss=self.loss, per_sample=self.per_sample, gamma=self.gamma)

    def _part(self, **changed: Any) -> loops.Recipe:
        """The recipe of one stage: this one's but for what is changed."""
        return loops.Recipe(**({f.name: getattr(self, f.name) for f in fields(loops.Recipe)} | changed))
