"""Any attack of adv-lib, by its name there: `adv_lib:attack=fmn,norm=l2,eps=none,options=steps=100`.

Source: Rony et al., the authors' own code of DDN, ALMA and others. The package asks for visdom, which current setuptools cannot
install, so it is installed without its dependencies: `pip install --no-deps adv-lib`; its plots are not used. Cost: that of the attack.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import Tensor

from mithridate.roles import register
from mithridate.threats.searching.foreign import Aim, Fenced, Foreign, MissingPackage, invoke, load, pick, quiet

SPARES = {name: ModuleType(name) for name in ("visdom", "torchvision")}  # stand in while adv-lib is imported
vars(SPARES["torchvision"])["models"] = None


def available() -> tuple[str, ...]:
    """Names of the attacks that the installed adv-lib has.

    Raises:
        MissingExtra: adv-lib is not installed.
    """
    return tuple(sorted(_attacks()))


@register(
    "evasion",
    scope=("foreign", "linf", "l2", "untargeted", "targeted", "whitebox"),
    cost="that of the attack",
    paper="Rony et al., CVPR 2019, arXiv 1811.09600, and the papers of its other attacks",
)
@dataclass(frozen=True, kw_only=True)
class AdvLib(Foreign):
    """Any attack of adv-lib."""

    attack: str = "pgd_linf"

    def run(self, model: Fenced, images: Tensor, classes: Tensor, aim: Aim) -> Tensor:
        """The attack on one batch; errors are those of `Foreign.run`."""
        attacks = _attacks()
        name = pick("adv_lib attack", self.attack, attacks)
        if name == "apgd_targeted":  # it runs towards every wrong class in turn
            aim.refuse_target(name)
        p = self.exponent()
        ours: dict[str, object] = {"norm": p, "p": p, "targeted": aim.targeted, "num_classes": aim.classes}
        if name != "tr":  # whose `eps` is a step
            ours |= {"eps": self.eps, "ε": self.eps, "max_eps": self.eps}
        found: Tensor = invoke(name, attacks[name], (model, images, classes), ours, self.options)
        return found


def _attacks() -> dict[str, Callable[..., Any]]:
    """The package's attacks by name; what it imports for plots and for one perceptual distance need not be there."""
    spares = {name: spare for name, spare in SPARES.items() if not _works(name)}
    try:
        sys.modules.update(spares)
        package = load("adv_lib.attacks", MissingPackage("adv-lib", "--no-deps"))
    finally:
        for name in spares:
            del sys.modules[name]
    return {name: call for name, call in vars(package).items() if inspect.isfunction(call)}


def _works(name: str) -> bool:
    try:
        with quiet():
            importlib.import_module(name)
    except (ImportError, RuntimeError):  # the latter from a torchvision that was built for another PyTorch
        return False
    return True
