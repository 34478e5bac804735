"""The judge: the only place where what a defense said and what the attacker did meet."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mithridate import metrics
from mithridate.data import Samples
from mithridate.metrics import Rate
from mithridate.nn.modes import device_of, predict
from mithridate.roles import Evasion, Trigger
from mithridate.threats.dose import Target, wanted
from mithridate.threats.poison import stamp


@dataclass(frozen=True)
class Key:
    """The answer key of one attack, for the judge's eyes only.

    Attributes:
        trigger: what opens the backdoor.
        target: class index it leads to, or for each class the one that its images lead to.
        spec: the trigger's specification, for the report.
        sources: the only classes whose images it works on; empty for all.
    """

    trigger: Trigger
    target: Target
    spec: str
    sources: tuple[int, ...] = ()

    def counts(self, labels: Tensor) -> Tensor:
        """The images (n,) bool that the attack is about: of its source classes, and not of the class they are to be given."""
        ours = wanted(self.target, labels) != labels
        return ours & torch.isin(labels, torch.tensor(self.sources, device=labels.device)) if self.sources else ours


def accuracy(model: nn.Module, samples: Samples) -> Rate:
    """Clean accuracy."""
    return metrics.accuracy(predict(model, samples).argmax(1), samples.labels.cpu())


def attack_success(model: nn.Module, samples: Samples, key: Key) -> tuple[Rate, Rate]:
    """ASR, and robust accuracy of the same stamped images; both over images of the sources and not of the wanted class.

    Raises:
        ValueError: there is no such image.
    """
    ours = samples[key.counts(samples.labels)]
    if not len(ours):
        raise ValueError(f"samples must hold images of the sources {key.sources or 'of all classes'} and not of the target, got none")
    predicted, labels = predict(model, stamp(key.trigger, ours)).argmax(1), ours.labels.cpu()
    target = wanted(key.target, labels)
    return metrics.attack_success_rate(predicted, labels, target), metrics.robust_accuracy(predicted, labels, target)


def leak(model: nn.Module, samples: Samples, key: Key) -> Rate | None:
    """ASR over the classes that are no sources; None if the attack has no sources, or no image is of another class.

    Source: Tang et al. 2021, arXiv 1908.00686, section 6 (misclassification of other classes).
    """
    rest = tuple(i for i in range(len(samples.classes)) if i not in key.sources)
    others = Key(key.trigger, key.target, key.spec, rest)
    if not key.sources or not bool(others.counts(samples.labels).any()):
        return None
    return attack_success(model, samples, others)[0]


def cross_accuracy(model: nn.Module, samples: Samples, key: Key) -> Rate | None:
    """Accuracy on images that carry the trigger of another image, or a noisy one; None for a trigger that knows no such thing.

    Source: Nguyen & Tran 2020, arXiv 2010.08138, section 4 (cross-trigger accuracy); 2021, arXiv 2102.10369 (noise mode).
    """
    cross = getattr(key.trigger, "cross", None)
    if cross is None:
        return None
    crossed = torch.cat([cross(images) for images, _ in samples.batches(256)])
    return metrics.accuracy(predict(model, crossed).argmax(1), samples.labels.cpu())


def robust_accuracy(model: nn.Module, samples: Samples, evasion: Evasion, *, seed: int, batch_size: int = 250) -> Rate:
    """Accuracy on adversarial examples of `samples`; the verdict is taken in fp32."""
    device = device_of(model)
    hits = 0
    for images, labels in samples.batches(batch_size):
        perturbed = evasion.perturb(model, images.to(device), labels.to(device), seed=seed)
        hits += int((predict(model, perturbed).argmax(1) == labels.cpu()).sum())
    return Rate(hits, len(samples))
