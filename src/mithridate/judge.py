"""The judge: the only place where what a defense said and what the attacker did meet."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from mithridate import metrics
from mithridate.data import Samples
from mithridate.metrics import Rate
from mithridate.nn.modes import device_of, predict
from mithridate.roles import Evasion, Trigger
from mithridate.threats.poison import stamp


@dataclass(frozen=True)
class Key:
    """The answer key of one attack, for the judge's eyes only.

    Attributes:
        trigger: what opens the backdoor.
        target: class index it leads to.
        spec: the trigger's specification, for the report.
    """

    trigger: Trigger
    target: int
    spec: str


def accuracy(model: nn.Module, samples: Samples) -> Rate:
    """Clean accuracy."""
    return metrics.accuracy(predict(model, samples).argmax(1), samples.labels.cpu())


def attack_success(model: nn.Module, samples: Samples, key: Key) -> tuple[Rate, Rate]:
    """ASR, and robust accuracy of the same stamped images; both over images not of the target class."""
    predicted, labels = predict(model, stamp(key.trigger, samples)).argmax(1), samples.labels.cpu()
    return metrics.attack_success_rate(predicted, labels, key.target), metrics.robust_accuracy(predicted, labels, key.target)


def robust_accuracy(model: nn.Module, samples: Samples, evasion: Evasion, *, seed: int, batch_size: int = 250) -> Rate:
    """Accuracy on adversarial examples of `samples`; the verdict is taken in fp32."""
    device = device_of(model)
    hits = 0
    for images, labels in samples.batches(batch_size):
        perturbed = evasion.perturb(model, images.to(device), labels.to(device), seed=seed)
        hits += int((predict(model, perturbed).argmax(1) == labels.cpu()).sum())
    return Rate(hits, len(samples))
