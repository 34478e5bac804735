"""PGD in the L-inf ball, as other packages' users call it: same radius, step and number of steps, no random start."""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from mithridate.nn.timm_models import import_torchvision

Attack = Callable[[Tensor, Tensor], Tensor]


def rivals(model: nn.Module, eps: float, step: float, steps: int, batch: int) -> dict[str, Attack]:
    """Attack by name, each from a batch of images and labels to adversarial examples; the model is in eval mode."""
    import_torchvision()
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))  # adv-lib wants it for its plots
    sys.modules["visdom"].Visdom = object  # type: ignore[attr-defined]
    import foolbox
    import torchattacks
    from adv_lib.attacks import pgd_linf
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    theirs = torchattacks.PGD(model, eps=eps, alpha=step, steps=steps, random_start=False)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))  # pyright: ignore[reportPrivateImportUsage]
    linf = foolbox.attacks.LinfPGD(abs_stepsize=step, steps=steps, random_start=False)
    loss = nn.CrossEntropyLoss()
    classifier = PyTorchClassifier(model, loss, input_shape=(3, 32, 32), nb_classes=10, clip_values=(0, 1), device_type="cpu")
    art = ProjectedGradientDescentPyTorch(
        classifier, norm=math.inf, eps=eps, eps_step=step, max_iter=steps, num_random_init=0, batch_size=batch, verbose=False
    )
    return {
        "torchattacks": theirs,
        "foolbox": lambda x, y: linf(wrapped, x, y, epsilons=eps)[1],
        "art": lambda x, y: torch.from_numpy(art.generate(x.numpy(), np.eye(10, dtype=np.float32)[y.numpy()])),
        "adv_lib": lambda x, y: pgd_linf(model, x, y, eps, steps=steps, random_init=False, absolute_step_size=step, loss_function="ce"),
    }
