"""Any attack of torchattacks, by its name there: `torchattacks:attack=DIFGSM,eps=0.03,options=steps=20`.

Source: Kim, "Torchattacks: A PyTorch Repository for Adversarial Attacks", 2020. The package asks for a version of requests that
breaks others, so it is installed without its dependencies: `pip install --no-deps torchattacks`. Cost: that of the attack.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mithridate.roles import register
from mithridate.threats.searching.foreign import Aim, Fenced, Foreign, MissingPackage, invoke, load, pick

NORMS = {"linf": "Linf", "l2": "L2"}


def available() -> tuple[str, ...]:
    """Names of the attacks that the installed torchattacks has; those that wrap other attacks are left out.

    Raises:
        MissingExtra: torchattacks is not installed.
    """
    package = load("torchattacks", MissingPackage("torchattacks", "--no-deps"))
    return tuple(sorted(set(package.__all__) - set(package.__wrapper__)))


@register(
    "evasion",
    scope=("foreign", "linf", "l2", "untargeted", "targeted", "whitebox", "blackbox"),
    cost="that of the attack",
    paper="Kim 2020, arXiv 2010.01950",
)
@dataclass(frozen=True, kw_only=True)
class Torchattacks(Foreign):
    """Any attack of torchattacks."""

    attack: str = "PGD"

    def run(self, model: Fenced, images: Tensor, classes: Tensor, aim: Aim) -> Tensor:
        """The attack on one batch; errors are those of `Foreign.run`."""
        name = pick("torchattacks attack", self.attack, available())
        package = load("torchattacks", MissingPackage("torchattacks", "--no-deps"))
        ours = {"eps": self.eps, "norm": NORMS[self.norm], "n_classes": aim.classes, "seed": aim.seed}
        attack = invoke(name, getattr(package, name), (model,), ours, self.options)
        if "targeted" not in attack.supported_mode:
            aim.refuse_target(name)
        if aim.targeted:
            attack.set_mode_targeted_by_label(quiet=True)
        found: Tensor = attack(images, classes)
        return found
