"""What the adapters of other packages' attacks share: finding the attack, its options from text, and a fence around what it touches."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import io
import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mithridate.checks import one_of, within
from mithridate.errors import BadSpec, MissingExtra
from mithridate.nn.ascent import Budget, check_batch, project
from mithridate.nn.modes import check_logits, frozen
from mithridate.roles import Goal
from mithridate.threats.searching.batches import in_batches
from mithridate.threats.searching.losses import check_classes
from mithridate.threats.searching.seeding import seeded

Option = int | float | bool | str | None
EXPONENTS = {"linf": math.inf, "l2": 2.0}
WORDS: dict[str, Option] = {"true": True, "false": False, "none": None}


class MissingPackage(MissingExtra):
    """A package that none of our extras can install; the text holds the line that does.

    Args:
        package: its name.
        flags: that its installation needs, as `--no-deps` where its own requirements conflict with others'.
    """

    def __init__(self, package: str, flags: str = "") -> None:
        Exception.__init__(self, " ".join(filter(None, (f"{package} is not installed: pip install", flags, package))))


class Fenced(nn.Module):
    """A model as a foreign package may see it: it can be run, and none of its weights, modes or gradients can be reached.

    Args:
        model: in eval mode, takes float images in [0, 1] and gives logits (n, classes).
        like: an image of the dtype and on the device that the attack works with.
    """

    model: nn.Module

    def __init__(self, model: nn.Module, like: Tensor) -> None:
        super().__init__()
        object.__setattr__(self, "model", model)
        self.where = nn.Parameter(like.new_zeros(1), requires_grad=False)  # packages ask a parameter for device and dtype
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, c, h, w) on any device, of any float dtype -> logits (n, classes) on the same device.

        Raises:
            ValueError: the model does not return finite logits.
        """
        given = images.to(self.where)
        return check_logits(self.model(given), len(given)).to(images)


def load(module: str, missing: MissingExtra) -> ModuleType:
    """Import a foreign module without its warnings.

    Raises:
        MissingExtra: `missing`, when it is not installed.
    """
    try:
        with quiet():
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise missing from error


def pick(kind: str, name: str, known: Collection[str]) -> str:
    """The name, if it is known.

    Raises:
        BadSpec: it is not; close ones are listed.
    """
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        raise BadSpec(f"{kind} {name!r} is unknown; {'did you mean' if close else 'known'}: {', '.join(close or sorted(known))}")
    return name


def read_options(text: str) -> dict[str, Option]:
    """Keyword arguments from `name=value;name=value`: whole numbers, numbers (`inf` too), true, false, none, and else strings.

    Raises:
        ValueError: a part without a value.
    """
    options: dict[str, Option] = {}
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise ValueError(f"options must be name=value;name=value, got {text!r}")
        options[name] = _value(value)
    return options


def _value(text: str) -> Option:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def invoke(what: str, call: Callable[..., Any], positional: Sequence[object], ours: Mapping[str, Any], text: str) -> Any:
    """Call a foreign class or function, with what it knows of `ours`, and with the user's options on top.

    Args:
        what: the attack's name, for errors.
        call: has named parameters.
        positional: what is given by position.
        ours: what the adapter sets, where there is such a parameter and the value is not None.
        text: the user's options; each must be a parameter.

    Raises:
        BadSpec: an unknown option, or a parameter without a default that nobody gave.
    """
    signature = inspect.signature(call)
    known = [p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    options = {pick(f"{what}: option", name, known): value for name, value in read_options(text).items()}
    set_by_us = {name: value for name, value in ours.items() if name in known and value is not None}
    try:
        bound = signature.bind(*positional, **{**set_by_us, **options})
    except TypeError as error:
        raise BadSpec(f"{what}: {error}") from error
    return call(*bound.args, **bound.kwargs)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no prints."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class Aim:
    """What a foreign attack is told beside the batch.

    Attributes:
        targeted: whether the classes given are to be reached, and not to be left.
        classes: number of classes of the model.
        seed: for packages that want one.
    """

    targeted: bool
    classes: int
    seed: int

    def refuse_target(self, attack: str) -> None:
        """What an attack that only leaves classes says first.

        Raises:
            ValueError: there is a class to reach.
        """
        if self.targeted:
            raise ValueError(f"goal must be untargeted for {attack!r}, got a target")


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """What every adapter does around a foreign attack.

    Attributes:
        attack: name of the attack in its package.
        norm: that `eps` is measured in; handed to the attack where it can choose, and not used where the attack says its own.
        eps: radius of the ball that the result is pulled into, in pixel units of [0, 1]; handed to the attack too where it takes
            a radius. None for an attack that needs none.
        options: further arguments of the attack, as `steps=10;rel_stepsize=0.1`: no commas.
        batch_size: images attacked at once.

    Raises:
        ValueError: a field out of its range.
    """

    attack: str
    norm: Literal["linf", "l2"] = "linf"
    eps: float | None = 8 / 255
    options: str = ""
    batch_size: int = 256

    def __post_init__(self) -> None:
        one_of(self, ("linf", "l2"), "norm")
        within(self, "(0, inf)", "eps")
        within(self, "[1, inf)", "batch_size")
        read_options(self.options)

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, goal: Goal = Goal(), *, seed: int = 0) -> Tensor:
        """Adversarial examples (n, c, h, w) in [0, 1] and, with `eps`, inside the ball to 1e-6; where the attack gives up, the image.

        Args:
            model: takes float images in [0, 1] and gives logits (n, classes); bit-identical afterwards, out of the attack's reach.
            images: float (n, c, h, w) in [0, 1], on the model's device.
            labels: (n,) int64 true classes.
            goal: any wrong class, one class, or a class per image.
            seed: of the global generators that the package draws from; they are put back afterwards.

        Raises:
            MissingExtra: the package is not installed.
            BadSpec: an attack or option that the package does not have.
            ValueError: a goal the attack cannot pursue, or images, labels or a model that do not fit.
        """
        check_batch(images, labels, goal)

        def attacked(x: Tensor, y: Tensor, aim: Goal) -> Tensor:
            fenced = Fenced(model, x)
            with torch.no_grad():
                classes = check_classes(fenced(x[:1]), y, aim).shape[1]
            made = self.run(fenced, x.clone(), aim.anchor(y), Aim(aim.target is not None, classes, seed))
            return self.bounded(made.detach().to(x), x)

        with quiet(), frozen(model), seeded(seed), torch.enable_grad():
            if self.eps is not None and self.exponent() not in (1, 2, math.inf):
                raise ValueError(f"eps must be none for {self.attack!r}, whose changes have no ball, got {self.eps}")
            try:
                return in_batches(attacked, images, labels, goal, self.batch_size)
            except ModuleNotFoundError as error:  # some attacks need more than their package does
                raise MissingPackage(error.name or "a package") from error

    def run(self, model: Fenced, images: Tensor, classes: Tensor, aim: Aim) -> Tensor:
        """The foreign attack on one batch -> images (n, c, h, w), wherever they lie.

        Args:
            model: gives logits; the attack can reach nothing else of it.
            images: float (n, c, h, w) in [0, 1], the attack's own copy.
            classes: (n,) to be left, or reached.
            aim: which of the two, and what else the attack may want to know.

        Raises:
            MissingExtra: the package is not installed.
            BadSpec: an attack or option that the package does not have.
            ValueError: a goal the attack cannot pursue, or no `eps` where it needs one.
        """
        raise NotImplementedError

    def exponent(self) -> float | None:
        """The p of the norm that `eps` is measured in; None where it is no norm."""
        return EXPONENTS[self.norm]

    def bounded(self, made: Tensor, images: Tensor) -> Tensor:
        """Pull what an attack made into [0, 1] and into the ball, of L-inf, L2 or L1."""
        made = torch.where(made.isfinite(), made, images).clamp(0, 1)
        if self.eps is None:
            return made
        p = self.exponent()
        if p == 1:
            change = made - images
            return images + change * (self.eps / change.abs().sum((1, 2, 3), keepdim=True).clamp_min(1e-12)).clamp(max=1)
        return project(made, images, Budget(norm="l2" if p == 2 else "linf", eps=self.eps))
