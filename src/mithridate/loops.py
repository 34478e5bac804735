"""The one training loop: device, precision, memory format, BatchNorm mode, schedule and checkpoints in one place."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mithridate.checks import one_of, within
from mithridate.data import Samples, to_float
from mithridate.errors import NotFinite
from mithridate.nn.augment import crop_and_flip
from mithridate.nn.checkpoints import digest, read_state, write_state
from mithridate.nn.modes import clone, device_of, fast_layout, has_fast_bf16
from mithridate.roles import Progress, silent

Transform = Callable[[nn.Module, Tensor, Tensor, int], Tensor]
Loss = Callable[[Any, Tensor], Tensor]
After = Callable[[nn.Module, int], bool]
Measure = Callable[[Tensor, Tensor], Tensor]
CROSS_ENTROPIES: Measure = partial(F.cross_entropy, reduction="none")
_Model = TypeVar("_Model", bound=nn.Module)


def keep_images(model: nn.Module, images: Tensor, labels: Tensor, epoch: int) -> Tensor:
    """The transform that changes nothing."""
    return images


def go_on(model: nn.Module, epochs: int) -> bool:
    """The judgment after an epoch that never ends a training."""
    return True


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train: SGD with Nesterov momentum.

    Attributes:
        epochs: passes over the data, at least 1.
        batch_size: images a step.
        lr: peak learning rate.
        schedule: `cosine` (one warm-up epoch at most, then a cosine to zero), `step` (divided by ten at 1/2 and 3/4), `constant`.
        momentum: of SGD.
        weight_decay: L2 penalty.
        pad: largest random shift in pixels.
        flip: random mirroring.
        precision: `auto` (bf16 where the processor or GPU computes in it), `bf16` or `fp32`.
        compile: compile the model; pays on a GPU, not on a CPU.
        devices: GPUs (or CPU processes) that share each batch.
    """

    epochs: int = 20
    batch_size: int = 128
    lr: float = 0.1
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    pad: int = 4
    flip: bool = False
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: bool = False
    devices: int = 1

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "epochs", "batch_size", "devices")
        within(self, "(0, inf)", "lr")
        within(self, "[0, 1)", "momentum")
        within(self, "[0, inf)", "weight_decay", "pad")
        one_of(self, ("cosine", "step", "constant"), "schedule")
        one_of(self, ("auto", "bf16", "fp32"), "precision")

    def steps(self, count: int) -> int:
        """How many batches an epoch over `count` samples has; a last one of one, which teaches BatchNorm nothing, joins the one before."""
        return max(1, math.ceil((count - 1) / self.batch_size))

    def factor(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate at a step as a share of the peak, in [0, 1]."""
        done = step / (self.epochs * steps_per_epoch)
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "step":
            return 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01
        warmup = min(1.0, 0.2 * self.epochs) / self.epochs
        if done < warmup:
            return done / warmup
        return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What a method may change in the loop.

    Attributes:
        transform: (model, float images, labels, epoch) -> images, after augmentation; adversarial training lives here.
        loss: (what the model gives, labels) -> scalar. A method that trains more than a classifier hands the loop one module that
            holds all its networks and gives all that its loss needs; so they are optimized, saved and resumed together.
        recorded: (epochs, m, n) float32 on the CPU, for the loop to fill, where a method wants to know what `measure` says of each sample
            in the forward pass it is trained with, which costs no other pass. It is saved and resumed with the weights.
        measure: (float logits (b, classes) of a batch, labels (b,)) -> (m, b), or (b,) if m is 1.
        after: (model in eval mode, epochs done) -> whether to go on; called after each epoch, and must leave the model alone.
        clip: largest norm of a step's gradient; None for any.
        checkpoint: `.safetensors` file that holds the state after each epoch; if it exists and is whole and of this very run,
            training goes on from it to the same bytes.
        tag: tells this run from others of the same recipe, seed, data and task, so that neither goes on from the other's checkpoint.
        progress: told after every few steps.
        task: what the progress is called.
    """

    transform: Transform = keep_images
    loss: Loss = F.cross_entropy
    recorded: Tensor | None = field(default=None, repr=False)
    measure: Measure = CROSS_ENTROPIES
    after: After = go_on
    clip: float | None = None
    checkpoint: Path | None = None
    tag: str = ""
    progress: Progress = field(default=silent)
    task: str = "training"


def train(model: _Model, samples: Samples, recipe: Recipe, *, seed: int = 0, hooks: Hooks = Hooks()) -> _Model:
    """A trained copy of `model`, in eval mode on the same device; the given one is left as it was.

    Every random draw is a function of `seed` and the epoch, so a run that was killed goes on to the same bytes.

    Args:
        model: takes float images (n, c, h, w) in [0, 1], gives logits (n, classes).
        samples: the training images; they stay in their dtype on their device, augmentation runs on the batch.
        recipe: how to train.
        seed: of order, augmentation and dropout.
        hooks: what a method changes.

    Raises:
        ValueError: no samples, or a place for what is recorded that does not fit.
        NotFinite: the loss diverges.
    """
    if not len(samples):
        raise ValueError("samples must not be empty")
    if (kept := hooks.recorded) is not None and (kept.ndim, len(kept), kept.shape[-1]) != (3, recipe.epochs, len(samples)):
        raise ValueError(f"recorded must have shape ({recipe.epochs}, m, {len(samples)}), got {tuple(kept.shape)}")
    run = _Run(model, samples, recipe, seed, hooks)
    first, device = run.restore(), device_of(model)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):  # dropout draws from the global generators
        for epoch in range(first, recipe.epochs):
            run.epoch(epoch)
            run.save(epoch + 1)
            if not hooks.after(run.student.eval(), epoch + 1):
                break
    return run.student.to(memory_format=torch.contiguous_format).eval()  # type: ignore[no-any-return]


def _laid_out(model: nn.Module, images: Tensor) -> tuple[Any, torch.memory_format]:
    """A copy to train, in channels-last, which is faster, unless it flattens features in a way that does not allow it."""
    student = clone(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if fast_layout(student, images, bf16=False) is torch.channels_last:
        return student, torch.channels_last
    return clone(model), torch.contiguous_format  # a new one: weights of one channel do not find back to their layout


class _Run:
    """One training run: Fabric, optimizer and position."""

    def __init__(self, model: nn.Module, samples: Samples, recipe: Recipe, seed: int, hooks: Hooks) -> None:
        self.samples, self.recipe, self.seed, self.hooks = samples, recipe, seed, hooks
        self.steps = recipe.steps(len(samples))
        device = device_of(model)
        self.student, self.layout = _laid_out(model, to_float(samples.images[:2].to(device)))
        decay, momentum = recipe.weight_decay, recipe.momentum
        optimizer = torch.optim.SGD(self.student.parameters(), recipe.lr, momentum, weight_decay=decay, nesterov=momentum > 0)
        self.fabric = _fabric(recipe, device)
        runnable: Any = torch.compile(self.student) if recipe.compile else self.student
        self.model, self.optimizer = self.fabric.setup(runnable, optimizer)
        self.seen = torch.zeros(0 if hooks.recorded is None else hooks.recorded.shape[1:], device=self.fabric.device)
        self.fingerprint = self._fingerprint() if hooks.checkpoint else ""

    def epoch(self, epoch: int) -> None:
        """Train for one epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        torch.manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.samples), generator=generator)
        running, self.seen = torch.zeros(()), torch.zeros_like(self.seen)
        for step, index in enumerate(order.tensor_split([self.recipe.batch_size * (i + 1) for i in range(self.steps - 1)])):
            loss = self.step(index, epoch * self.steps + step, epoch, generator)
            running = loss if step == 0 else running.lerp(loss, 0.05)
            if step % 20 == 19 or step == self.steps - 1:
                self._report(epoch, step, float(running))
        if self.hooks.recorded is not None:
            self.hooks.recorded[epoch] = self.fabric.all_reduce(self.seen, reduce_op="sum")

    def step(self, index: Tensor, step: int, epoch: int, generator: torch.Generator) -> Tensor:
        """One optimizer step on the chosen samples; gives the loss."""
        index = index[self.fabric.global_rank :: self.fabric.world_size].to(self.samples.images.device)
        images = crop_and_flip(self.samples.images[index], generator, pad=self.recipe.pad, flip=self.recipe.flip)
        images = to_float(images.to(self.fabric.device)).clone(memory_format=self.layout)  # `contiguous` keeps odd strides of one channel
        labels = self.samples.labels[index].to(self.fabric.device)
        images = self.hooks.transform(self.student, images, labels, epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr * self.recipe.factor(step, self.steps)
        self.student.train()
        given = self.model(images)
        loss = self.hooks.loss(given, labels)
        if self.hooks.recorded is not None:
            self.seen[:, index.to(self.seen.device)] = self.hooks.measure(given.detach().float(), labels)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if self.hooks.clip is not None:
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=self.hooks.clip, error_if_nonfinite=False)
        self.optimizer.step()
        return loss.detach()

    def _report(self, epoch: int, step: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise NotFinite(f"loss must stay finite, got {loss} in epoch {epoch + 1}; a lower lr may help")
        done, total = epoch * self.steps + step + 1, self.recipe.epochs * self.steps
        self.hooks.progress(self.hooks.task, done, total, f"epoch {epoch + 1}, loss {loss:.3f}")

    def save(self, epochs_done: int) -> None:
        """Write weights, momentum and position, atomically, as safetensors."""
        if self.hooks.checkpoint is None or not self.fabric.is_global_zero:
            return
        state = {f"model.{name}": tensor for name, tensor in self.student.state_dict().items()}
        for i, parameter in enumerate(self.student.parameters()):
            if (buffer := self.optimizer.state[parameter].get("momentum_buffer")) is not None:
                state[f"momentum.{i}"] = buffer
        if self.hooks.recorded is not None:
            state["recorded"] = self.hooks.recorded
        write_state(self.hooks.checkpoint, state, run=self.fingerprint, epochs=epochs_done)

    def restore(self) -> int:
        """Load the checkpoint of this same run, if there is a whole one; gives the number of epochs it has behind it."""
        state, epochs = ({}, 0) if self.hooks.checkpoint is None else read_state(self.hooks.checkpoint, self.fingerprint)
        if not epochs:
            return 0
        self.student.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
        for i, parameter in enumerate(self.student.parameters()):
            if f"momentum.{i}" in state:
                self.optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(state[f"momentum.{i}"])
        if self.hooks.recorded is not None:
            self.hooks.recorded.copy_(state["recorded"])
        return epochs

    def _fingerprint(self) -> str:
        """What makes this run this run: recipe, seed, every label and image, and the weights it begins with."""
        kept = "" if self.hooks.recorded is None else f" recorded {tuple(self.hooks.recorded.shape)}"
        what = f"{self.recipe} seed={self.seed} task={self.hooks.task}{self.hooks.tag}{kept}"
        return digest(what, (self.samples.labels, *self.samples.images.split(4096), *self.student.state_dict().values()))


def _fabric(recipe: Recipe, device: torch.device) -> Any:
    from lightning_fabric import Fabric  # heavy, and only needed to train

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces its precision on every run
    bf16 = recipe.precision == "bf16" or (recipe.precision == "auto" and has_fast_bf16(device))
    accelerator = "cuda" if device.type == "cuda" else "cpu"
    devices = [device.index or 0] if device.type == "cuda" and recipe.devices == 1 else recipe.devices  # stay where the model is
    fabric = Fabric(accelerator=accelerator, devices=devices, precision="bf16-mixed" if bf16 else "32-true")
    if recipe.devices > 1:
        fabric.launch()
    return fabric
