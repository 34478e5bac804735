"""Any image attack of ART, by its name there: `art:attack=HopSkipJump,norm=l2,eps=none,options=max_iter=20`.

Source: Nicolae et al., "Adversarial Robustness Toolbox", 2018. Attacks that return a patch, need guide images or probabilities, or
attack tables, video, sound or object detectors have no place under this verb and are left out. Some take one image at a time:
`batch_size=1`. Known failures: ART computes in fp32; its `AutoAttack` is a different
ensemble than the standard one. Cost: of PGD about 1.4 times ours.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from mithridate.errors import MissingExtra
from mithridate.roles import register
from mithridate.threats.searching.foreign import Aim, Fenced, Foreign, invoke, load, pick

NO_IMAGES = ("FrameSaliency", "LowProFool", "OverTheAir", "Overload")
NEED_MORE = ("AdversarialPatch", "FeatureAdversaries", "GRAPHITE", "Laser", "SNAL", "TargetedUniversal", "VirtualAdversarial")


def available() -> tuple[str, ...]:
    """Names of the attacks that the installed ART has for image classifiers in PyTorch.

    Raises:
        MissingExtra: ART is not installed.
    """
    package, base = _load("attacks.evasion"), _load("attacks").EvasionAttack
    classifier = _load("estimators.classification").PyTorchClassifier

    def fit(name: str, call: Any) -> bool:
        if not inspect.isclass(call) or not issubclass(call, base) or name.startswith(NO_IMAGES + NEED_MORE) or "TensorFlow" in name:
            return False
        requirements: tuple[type, ...] = getattr(call, "_estimator_requirements", ())
        return all(issubclass(classifier, needed) for needed in requirements)

    return tuple(sorted(name for name, call in vars(package).items() if fit(name, call)))


@register(
    "evasion",
    scope=("foreign", "linf", "l2", "untargeted", "targeted", "whitebox", "blackbox"),
    cost="that of the attack, some 1.4 times ours",
    paper="Nicolae et al. 2018, arXiv 1807.01069",
)
@dataclass(frozen=True, kw_only=True)
class ART(Foreign):
    """Any image attack of the Adversarial Robustness Toolbox."""

    attack: str = "ProjectedGradientDescent"

    def run(self, model: Fenced, images: Tensor, classes: Tensor, aim: Aim) -> Tensor:
        """The attack on one batch; errors are those of `Foreign.run`."""
        name = pick("art attack", self.attack, available())
        call = getattr(_load("attacks.evasion"), name)
        fixed = name == "SaliencyMapMethod"  # always runs towards the classes it is given, or towards random ones
        if not fixed and "targeted" not in inspect.signature(call).parameters:
            aim.refuse_target(name)
        norm = None if name == "Wasserstein" else self.exponent()
        ours = {"eps": self.eps, "norm": norm, "targeted": aim.targeted, "batch_size": len(images), "verbose": False}
        attack = invoke(name, call, (self._classifier(model, images, aim.classes),), ours, self.options)
        truth = None if fixed and not aim.targeted else classes.numpy(force=True)
        with _repeatable(aim.seed):
            return torch.from_numpy(attack.generate(images.numpy(force=True), truth))

    def _classifier(self, model: Fenced, images: Tensor, classes: int) -> Any:
        kind = _load("estimators.classification").PyTorchClassifier
        device = "gpu" if images.is_cuda else "cpu"
        return kind(model, nn.CrossEntropyLoss(), tuple(images.shape[1:]), classes, clip_values=(0.0, 1.0), device_type=device)


@contextlib.contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Generators that an attack makes without a seed get this one; decision-based attacks of ART do that."""
    plain = np.random.RandomState

    class Seeded(plain):  # type: ignore[misc, valid-type]
        def __init__(self, given: Any = None) -> None:
            super().__init__(seed % 2**32 if given is None else given)

    with mock.patch.object(np.random, "RandomState", Seeded):
        yield


def _load(module: str) -> ModuleType:
    return load(f"art.{module}", MissingExtra("adversarial-robustness-toolbox", "interop"))
