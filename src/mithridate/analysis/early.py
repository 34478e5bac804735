"""The first epochs of a training that may be on poisoned data: who is learned although the loss keeps everybody from being learned?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mithridate import loops
from mithridate.analysis.isolation import exact_losses, flooding, local_ascent
from mithridate.analysis.leaning import impartial_losses
from mithridate.checks import one_of, within
from mithridate.data import Samples, to_float
from mithridate.errors import NotFinite
from mithridate.nn.modes import check_logits, device_of, evaluating, fast_layout, has_fast_bf16
from mithridate.roles import Progress, silent

_Result = TypeVar("_Result")
SETTLED = 300  # steps of a training from which its last state tells who was learned (docs/adr/0020)
LEARNED = 0.98  # a mean loss of at least this share of log C is that of a model that guesses


@dataclass(frozen=True, kw_only=True)
class Early(loops.Recipe):
    """How to train so that only what is learned too fast is learned.

    Attributes:
        loss: `lga` (local gradient ascent) or `flooding`; their gradients agree.
        per_sample: hold each sample, as the paper's text says, poisoned ones included; else the mean of a batch, as released code does.
        gamma: the loss to hold, in nats.
    """

    epochs: int = 20
    schedule: Literal["cosine", "step", "constant"] = "constant"
    weight_decay: float = 1e-4
    pad: int = 0
    loss: Literal["lga", "flooding"] = "lga"
    per_sample: bool = False
    gamma: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, ("lga", "flooding"), "loss")
        within(self, "(0, inf)", "gamma")

    def held(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch: logits (n, classes), labels (n,) -> scalar."""
        hold = local_ascent if self.loss == "lga" else flooding
        return hold(F.cross_entropy(logits, labels, reduction="none"), self.gamma, per_sample=self.per_sample)


@dataclass(frozen=True, eq=False)
class LearnedEarly:
    """What the early epochs came to.

    Attributes:
        model: the trained copy.
        losses: (epochs, n) cross-entropy of each sample in the forward pass of each epoch.
        impartial: the same had the model not leaned to the sample's label (`leaning.impartial_losses`).
        steps: how many batches it was trained on.
        notes: what went wrong, a sentence each.
    """

    model: nn.Module
    losses: Tensor
    impartial: Tensor
    steps: int
    notes: tuple[str, ...]

    @property
    def doubt(self) -> str:
        """Why to suspect none of the samples would say little, a sentence; nothing where it says something.

        At a loss of log 2 a label is as probable as all others together. After four early epochs of CIFAR-10 the median is 0.19 nats on
        clean data, and 0.55 with a tenth of the labels wrong.
        """
        if self.steps < SETTLED:
            return f"the early epochs were {self.steps} steps, and under {SETTLED} tell little: smaller batches or more of them tell more"
        if float(self.losses[-1].median()) >= math.log(2):
            return "after the early epochs half of the images were as likely wrong as right: smaller batches or more of them tell more"
        return ""

    def final_losses(self, samples: Samples, *, progress: Progress = silent) -> Tensor:
        """What the losses of the n samples came to (n,): `look`, or in a young training the impartial ones of its last epoch.

        In eval mode a model goes by running statistics of the batches behind it. While it still changes with each of them, it may name
        one label for everything then, and all samples of that label look learned.
        """
        return look(self.model, samples, progress=progress) if self.steps >= SETTLED else self.impartial[-1]


def learn_early(model: nn.Module, samples: Samples, recipe: Early, *, seed: int, hooks: loops.Hooks) -> LearnedEarly:
    """Train under a loss that is held up, and record how each sample fares.

    A training that ends as a model that guesses is one that diverged: `steadily` says what happens then.

    Args:
        model: the initial one.
        samples: n of them.
        recipe: how.
        seed: of the training.
        hooks: its `loss`, `recorded` and `measure` are set here.

    Raises:
        ValueError: no samples.
        NotFinite: even a hundredth of the learning rate diverges.
    """

    def run(lr: float) -> tuple[nn.Module, Tensor]:
        recorded = torch.full((recipe.epochs, 2, len(samples)), torch.nan)
        task = _task(hooks.task, lr, recipe.lr)
        own = replace(hooks, loss=recipe.held, recorded=recorded, measure=_measure, tag=f" {recipe}", task=task)
        trained = loops.train(model, samples, replace(recipe, lr=lr), seed=seed, hooks=own)
        guessing, last = LEARNED * math.log(max(2, len(samples.classes))), float(recorded[-1, 0].mean())
        if last > guessing and lr > recipe.lr / 50:
            raise NotFinite(f"loss must fall below that of guessing, got {last:.3g}")
        return trained, recorded

    (trained, recorded), notes = steadily(run, recipe.lr)
    return LearnedEarly(trained, recorded[:, 0], recorded[:, 1], recipe.epochs * recipe.steps(len(samples)), notes)


def _measure(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([F.cross_entropy(logits, labels, reduction="none"), impartial_losses(logits, labels)])


def train_steadily(
    model: nn.Module, samples: Samples, recipe: loops.Recipe, *, seed: int, hooks: loops.Hooks
) -> tuple[nn.Module, tuple[str, ...]]:
    """`loops.train`, with a lower learning rate where it diverges, and what went wrong; it raises as `steadily` does."""

    def run(lr: float) -> nn.Module:
        return loops.train(model, samples, replace(recipe, lr=lr), seed=seed, hooks=replace(hooks, task=_task(hooks.task, lr, recipe.lr)))

    return steadily(run, recipe.lr)


def _task(task: str, lr: float, first: float) -> str:
    return task if lr == first else f"{task} at lr {lr:g}"  # another name, for it starts from the beginning again


def steadily(run: Callable[[float], _Result], lr: float) -> tuple[_Result, tuple[str, ...]]:
    """What a run at a learning rate gives, or one at a tenth or a hundredth of it where it diverges, and a sentence for each that did.

    Raises:
        NotFinite: the last one diverges, too.
    """
    notes: tuple[str, ...] = ()
    for tried in (lr, lr / 10):
        try:
            return run(tried), notes
        except NotFinite as error:
            notes += (f"learning rate {tried:g} was too high, began again at a tenth of it: {error}",)
    return run(lr / 100), notes


@torch.no_grad()
def look(model: nn.Module, samples: Samples, *, progress: Progress = silent, batch_size: int = 256) -> Tensor:
    """Cross-entropy (n,) of each sample in eval mode without augmentation, on the CPU: one pass in the fastest layout and precision.

    Raises:
        ValueError: no samples, or a model that does not return finite logits.
    """
    if not len(samples):
        raise ValueError("samples must not be empty")
    device, found = device_of(model), []
    fast = has_fast_bf16(device)
    layout = fast_layout(model, to_float(samples.images[:2].to(device)), bf16=fast) or torch.contiguous_format
    with evaluating(model), torch.autocast(device.type, torch.bfloat16, enabled=fast):
        for start in range(0, len(samples), batch_size):
            images = to_float(samples.images[start : start + batch_size].to(device)).contiguous(memory_format=layout)
            logits = check_logits(model(images), len(images)).float()
            labels = samples.labels[start : start + batch_size].to(device)
            found.append(exact_losses(logits, labels).cpu())
            progress("looking", start + len(images), len(samples))
    return torch.cat(found)
