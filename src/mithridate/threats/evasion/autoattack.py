"""AutoAttack: four attacks of different kinds, each on the images that the earlier ones could not fool.

The standard ensemble: APGD on cross-entropy, APGD on the targeted DLR loss, FAB-T, and Square, with nothing to tune.

Scope: the standard measure of robustness in an L-inf or L2 ball. Cost: some 2,000 gradients and 7,000 forward passes for each image
that withstands it all. Known failures: models that are random, or that change with their input, need attacks made for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

from torch import Tensor, nn

from mithridate.checks import one_of, within
from mithridate.nn.ascent import check_batch
from mithridate.roles import Evasion, Goal, register
from mithridate.spec import find, make
from mithridate.threats.searching.attempts import reaching

STANDARD = ("apgd_ce", "apgd_t", "fab_t", "square")
PARTS = {  # the names of the ensemble's parts -> method and fields
    "apgd_ce": ("apgd", {"loss": "ce"}),
    "apgd_dlr": ("apgd", {"loss": "dlr"}),
    "apgd_t": ("apgd", {"loss": "targeted_dlr"}),
    "fab_t": ("fab", {}),
}


@dataclass(frozen=True, eq=False)
class Round:
    """Where the evaluation stands after one part.

    Attributes:
        part: its name; `clean` before the first.
        images: (n, c, h, w) adversarial where the goal is reached, untouched elsewhere.
        robust: (n,) bool, images that still withstand.
    """

    part: str
    images: Tensor
    robust: Tensor

    @property
    def accuracy(self) -> float:
        """Robust accuracy: share of the images that still withstand, in [0, 1]."""
        return float(self.robust.double().mean())

    def __repr__(self) -> str:
        return f"Round({self.part}: {int(self.robust.sum())} of {len(self.robust)} withstand, {self.accuracy:.2%})"


@register(
    "evasion",
    scope=("linf", "l2", "untargeted", "targeted", "whitebox", "blackbox", "ensemble"),
    cost="about 2000 gradients and 7000 forward passes per image that withstands",
    paper="Croce & Hein, ICML 2020, arXiv 2003.01690",
)
@dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """AutoAttack, the standard ensemble of APGD-CE, APGD-T, FAB-T and Square.

    Attributes:
        norm: of the perturbation of one image, over all its pixels and channels.
        eps: radius, in pixel units of [0, 1].
        parts: attacks in their order: `apgd_ce`, `apgd_dlr`, `apgd_t`, `fab_t`, `square`, or any evasion with fields `norm` and `eps`.
        steps: gradient steps of each attempt of every part that has any.
        queries: of every part that has any.
        n_target: wrong classes tried by every part that tries them in turn.
        fast: bf16 gradients in every part that has them; what fools is judged in full precision all the same.
        batch_size: images attacked at once.

    Raises:
        ValueError: a field out of its range.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float = 8 / 255
    parts: tuple[str, ...] = STANDARD
    steps: int = 100
    queries: int = 5000
    n_target: int = 9
    fast: bool = False
    batch_size: int = 256

    def __post_init__(self) -> None:
        one_of(self, ("linf", "l2"), "norm")
        within(self, "(0, inf)", "eps")
        within(self, "[1, inf)", "steps", "queries", "n_target", "batch_size")
        usable = {e.name for e in find(role="evasion") if {"norm", "eps"} <= {f.name for f in fields(e.method)}}
        known = [*PARTS, *sorted(usable - {"apgd", "fab", "autoattack"})]
        if not self.parts or not set(self.parts) <= set(known):
            raise ValueError(f"parts must be some of {', '.join(known)}, got {self.parts}")

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor, goal: Goal = Goal(), *, seed: int = 0) -> Tensor:
        """Adversarial examples (n, c, h, w), in [0, 1] and within `eps`; images that withstand come back as they were.

        Arguments and errors are those of `roles.Evasion.perturb`; `seed` serves each part alike.
        """
        *_, last = self.rounds(model, images, labels, goal, seed=seed)
        return last.images

    def rounds(self, model: nn.Module, images: Tensor, labels: Tensor, goal: Goal = Goal(), *, seed: int = 0) -> Iterator[Round]:
        """The standard report, as it comes: the images as they are, then what each part has left. Arguments as of `perturb`."""
        check_batch(images, labels, goal)
        images, labels, goal = images.detach(), labels.to(images.device), goal.to(images.device)
        robust = ~reaching(model, images, labels, goal, self.batch_size)
        yield Round("clean", images, robust)
        for part in self.parts:
            left = robust.nonzero().flatten()
            if len(left):
                made = self._method(part).perturb(model, images[left], labels[left], goal[left], seed=seed)
                fooled = reaching(model, made, labels[left], goal[left], self.batch_size)
                images, robust = images.index_copy(0, left[fooled], made[fooled]), robust.index_fill(0, left[fooled], False)
            yield Round(part, images, robust)

    def _method(self, part: str) -> Evasion:
        """The part with this ensemble's settings, as far as it has them."""
        name, values = PARTS.get(part, (part, {}))
        chosen = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "parts"}
        known = {f.name for e in find(name, "evasion") for f in fields(e.method)}
        method: Any = make(name, {**values, **{key: value for key, value in chosen.items() if key in known}}, "evasion")
        return method  # type: ignore[no-any-return]
