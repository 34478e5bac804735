"""One antidote for both poisons: find, remove and survive backdoors and adversarial examples in image classifiers.

Everything below is imported on first use, so that `import mithridate` costs nothing, not even PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mithridate import audit, calibrate, datasets, metrics
    from mithridate.data import Samples, Truth
    from mithridate.defenses.detectors.kde import KDE
    from mithridate.defenses.inspectors.adversarial_labels import AdversarialLabels
    from mithridate.defenses.inspectors.neural_cleanse import NeuralCleanse
    from mithridate.defenses.repairs.aft import AFT
    from mithridate.defenses.screens.spectral_signature import SpectralSignature
    from mithridate.defenses.trainers.plain import Plain
    from mithridate.guard import Guard
    from mithridate.methods import find, parse
    from mithridate.nn.guarded import Guarded
    from mithridate.nn.resolve import resolve
    from mithridate.roles import Goal, Verdict, silent
    from mithridate.spec import to_spec
    from mithridate.threats.attack import attack
    from mithridate.threats.dose import Dose, next_class
    from mithridate.threats.evasion.pgd import PGD
    from mithridate.threats.poison import poison, ready, stamp
    from mithridate.threats.triggers.badnets import BadNets
    from mithridate.threats.triggers.blend import Blend

__version__ = "0.1.0"
__all__ = [
    "AFT",
    "KDE",
    "PGD",
    "AdversarialLabels",
    "BadNets",
    "Blend",
    "Dose",
    "Goal",
    "Guard",
    "Guarded",
    "NeuralCleanse",
    "Plain",
    "Samples",
    "SpectralSignature",
    "Truth",
    "Verdict",
    "attack",
    "audit",
    "calibrate",
    "datasets",
    "find",
    "metrics",
    "next_class",
    "parse",
    "poison",
    "ready",
    "resolve",
    "silent",
    "stamp",
    "to_spec",
]

_MODULES = ("audit", "calibrate", "datasets", "metrics")
_HOMES = {
    "data": ("Samples", "Truth"),
    "defenses.detectors.kde": ("KDE",),
    "defenses.inspectors.adversarial_labels": ("AdversarialLabels",),
    "defenses.inspectors.neural_cleanse": ("NeuralCleanse",),
    "defenses.repairs.aft": ("AFT",),
    "defenses.screens.spectral_signature": ("SpectralSignature",),
    "defenses.trainers.plain": ("Plain",),
    "guard": ("Guard",),
    "methods": ("find", "parse"),
    "nn.guarded": ("Guarded",),
    "nn.resolve": ("resolve",),
    "roles": ("Goal", "Verdict", "silent"),
    "spec": ("to_spec",),
    "threats.attack": ("attack",),
    "threats.dose": ("Dose", "next_class"),
    "threats.evasion.pgd": ("PGD",),
    "threats.poison": ("poison", "ready", "stamp"),
    "threats.triggers.badnets": ("BadNets",),
    "threats.triggers.blend": ("Blend",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"mithridate.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'mithridate' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mithridate.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
