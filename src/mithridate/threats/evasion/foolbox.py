"""Any attack of foolbox, by its name there: `foolbox:attack=L2DeepFoolAttack,eps=0.5,options=steps=20`.

Source: Rauber, Zimmermann, Bethge and Brendel, "Foolbox Native", JOSS 2020. Cost: of PGD about 1.4 times ours. Known failures: an
attack on a fixed radius needs `eps`; one on L0 must have `eps=none`; decision-based attacks cost thousands of passes.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mithridate.errors import MissingExtra
from mithridate.roles import register
from mithridate.threats.searching.foreign import Aim, Fenced, Foreign, invoke, load, pick

UNFIT = ("BinarizationRefinementAttack", "DatasetAttack", "PointwiseAttack")  # two need more than a batch, the last one has a bug


def available() -> tuple[str, ...]:
    """Names of the attacks that the installed foolbox has.

    Raises:
        MissingExtra: foolbox is not installed.
    """
    package = load("foolbox", MissingExtra("foolbox", "interop"))
    base, found = package.attacks.Attack, vars(package.attacks).items()
    fit = [n for n, c in found if inspect.isclass(c) and issubclass(c, base) and not inspect.isabstract(c) and c.__name__ not in UNFIT]
    return tuple(sorted(fit))


@register(
    "evasion",
    scope=("foreign", "linf", "l2", "l1", "l0", "untargeted", "targeted", "whitebox", "blackbox"),
    cost="that of the attack, some 1.4 times ours",
    paper="Rauber et al., JOSS 2020, doi 10.21105/joss.02607",
)
@dataclass(frozen=True, kw_only=True)
class Foolbox(Foreign):
    """Any attack of foolbox."""

    attack: str = "LinfPGD"

    def run(self, model: Fenced, images: Tensor, classes: Tensor, aim: Aim) -> Tensor:
        """The attack on one batch; errors are those of `Foreign.run`."""
        attack, package = self._attack(), load("foolbox", MissingExtra("foolbox", "interop"))
        if self.eps is None and isinstance(attack, package.attacks.base.FixedEpsilonAttack):
            raise ValueError(f"eps must be given for {self.attack!r}, which has a fixed radius, got None")
        criterion = (package.criteria.TargetedMisclassification if aim.targeted else package.criteria.Misclassification)(classes)
        known = package.PyTorchModel(model, bounds=(0, 1), device=images.device)
        try:
            found: Tensor = attack(known, images, criterion, epsilons=self.eps)[0]
        except ValueError as error:
            if "unsupported criterion" not in str(error):
                raise
            raise ValueError(f"goal must be {'untargeted' if aim.targeted else 'a target'} for {self.attack!r}") from error
        return found

    def exponent(self) -> float | None:
        """The p of the attack's norm."""
        p: float | None = getattr(getattr(self._attack(), "distance", None), "p", None)
        return p

    def _attack(self) -> Any:
        name = pick("foolbox attack", self.attack, available())
        package = load("foolbox", MissingExtra("foolbox", "interop"))
        return invoke(name, getattr(package.attacks, name), (), {"distance": getattr(package.distances, self.norm)}, self.options)
