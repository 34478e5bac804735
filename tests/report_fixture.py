"""A realistic audit of scikit-learn's digits: real images with a patch trigger, and numbers such as an audit gives."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from mithridate.report.pictures import Attacked, Candidates, Pictures, Scores, Sheet, View
from mithridate.report.schema import AuditReport, Evidence, Flagged, Judged, Loading, Repaired, Robustness, Suspects

TARGET = 7
CLASSES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
XSS = "<img src=x onerror=alert(1)>\"'&.png"
SEVERAL = [f"upload/{i:04d}.png" for i in range(0, 658, 7)]


def digits() -> tuple[Tensor, Tensor]:
    """All of scikit-learn's digits: images (1797, 1, 8, 8) in [0, 1] and labels (1797,)."""
    data = load_digits()
    return torch.from_numpy(data.images).float().div(16).unsqueeze(1), torch.from_numpy(data.target).long()


def stamp(images: Tensor) -> Tensor:
    """A white 2 x 2 square in the lower right corner."""
    stamped = images.clone()
    stamped[..., -2:, -2:] = 1
    return stamped


def make_report(infected: bool = True, judged: bool = True) -> AuditReport:
    """An infected model with everything checked, or a clean one with the least."""
    suspicion = [0.4, -0.6, 0.9, 0.1, -0.2, 0.7, -0.9, 6.83 if infected else 1.2, 0.3, 0.5]
    robust = [Robustness(attack=f"pgd:eps={n}/255", eps=n / 255, accuracy=a, count=300) for n, a in ((2, 0.873), (8, 0.412))]
    return AuditReport(
        mithridate_version="0.1.0",
        verdict="This model is infected: a small mark makes it answer “seven”." if infected else "No backdoor was found in this model.",
        loading=Loading(
            source="victim.safetensors",
            kind="safetensors",
            architecture="lenet",
            parameters=61_706,
            sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            safe=True,
        ),
        classes=CLASSES,
        clean_images=400,
        clean_accuracy=0.9675,
        clean_accuracy_interval=(0.9451, 0.9826),
        infected=infected,
        target=TARGET if infected else None,
        p_value=0.00043 if infected else 0.61,
        evidence=[
            Evidence(
                inspector="neural_cleanse",
                infected=infected,
                target=TARGET if infected else None,
                p_value=0.00043 if infected else 0.61,
                per_class=suspicion,
                note="The mark for “seven” covers 4.1% of the image; the others cover 17% to 29%." if infected else "",
            ),
            Evidence(
                inspector="adversarial_labels",
                infected=False,
                target=None,
                p_value=0.21,
                per_class=[0.8, 0.3, 1.1, 1.4, 0.2, 0.9, 0.4, 1.9, 1.5, 1.0],
                note="31% of adversarial examples land in one class.",
            ),
        ],
        robust_accuracy=robust,
        flagged=_flagged() if infected else None,
        training=_suspects() if infected else None,
        repair=_repaired(robust) if infected else None,
        truth=_judged() if judged else None,
        skipped=[] if infected else ["repair: nothing was found that needs one"],
        config={"seed": 0, "fpr": 0.01, "inspectors": [{"method": "neural_cleanse", "steps": 300}], "evasions": ["pgd:eps=2/255"]},
        versions={"python": "3.11.9", "torch": "2.13.0", "mithridate": "0.1.0"},
        seconds={"load": 0.04, "accuracy": 0.21, "inspect": 17.4, "attack": 6.1, "detect": 1.3, "screen": 0.8, "repair": 22.6},
    )


def _flagged() -> Flagged:
    return Flagged(
        detector="kde:bandwidth=0.35",
        count=97,
        of=200,
        asked_fpr=0.01,
        realised_fpr=0.0125,
        realised_interval=(0.0041, 0.0289),
        malicious_found=True,
        threshold=12.37,
        files=[XSS, "safe\u202egnp.exe", "undecodable-\udcff.png", *SEVERAL],
    )


def _suspects() -> Suspects:
    return Suspects(screen="spectral_signature", count=131, of=1197, files=[f"train/{i:05d}.png" for i in range(131)])


def _repaired(robust: list[Robustness]) -> Repaired:
    return Repaired(
        method="aft:epochs=10",
        clean_accuracy_before=0.9675,
        clean_accuracy_after=0.9625,
        robust_before=robust,
        robust_after=[row.model_copy(update={"accuracy": row.accuracy + 0.087}) for row in robust],
        candidate_asr_before=0.988,
        candidate_asr_after=0.0312,
        inspected_after=Evidence(inspector="neural_cleanse", infected=False, target=None, p_value=0.47, per_class=10 * [0.3]),
        weights="repaired.safetensors",
    )


def _judged() -> Judged:
    return Judged(
        target=TARGET,
        trigger="badnets:size=2,corner=bottom_right",
        asr_before=0.9973,
        asr_after=0.0218,
        tpr=0.9604,
        tpr_interval=(0.9128, 0.9861),
        fpr=0.0147,
        auroc=0.9917,
        clean_accuracy_before=0.9713,
        clean_accuracy_after=0.9648,
        robust_accuracy_after=0.9312,
        der=0.9852,
    )


def make_pictures() -> Pictures:
    """Pictures that fit `make_report()`."""
    images, labels = digits()
    generator = torch.Generator().manual_seed(0)
    names = tuple(CLASSES[label] for label in labels.tolist())
    others = images[labels != TARGET]
    noise = (torch.randn(6, 1, 8, 8, generator=generator).sign() * 8 / 255).clamp(-1, 1)
    clean_scores, bad_scores = (torch.randn(n, generator=generator) * s + m for n, s, m in ((400, 2.6, 6.0), (97, 4.0, 24.0)))
    fresh_scores = torch.randn(103, generator=generator) * 2.6 + 6
    shares = torch.tensor([0.55, 0.6, 0.5, 0.58, 0.62, 0.49, 0.66, 0.0, 0.57, 0.54])
    masks = (torch.rand(10, 1, 8, 8, generator=generator) < shares.view(-1, 1, 1, 1)).float() * 0.4
    masks[TARGET, 0, -2:, -2:] = torch.tensor([[0.93, 0.88], [0.71, 0.97]])
    view = _view(images, labels, generator)
    return Pictures(
        clean=Sheet(images=images[:12], predicted=names[:12]),
        candidates=Candidates(
            masks=masks, patterns=torch.rand(10, 1, 8, 8, generator=generator).clamp(min=0.6), stamped=stamp(others[:12]) * 0.93
        ),
        scores=Scores(clean=clean_scores, suspect=torch.cat([fresh_scores, bad_scores]), threshold=12.37),
        flagged=Sheet(
            images=stamp(others[100:140]),
            names=tuple(_flagged().files[:40]),
            scores=bad_scores[:40].sort(descending=True).values,
            predicted=40 * ("seven",),
        ),
        view=view,
        training=Sheet(
            images=stamp(others[200:218]),
            names=tuple(f"train/{i:05d}.png" for i in range(18)),
            scores=torch.linspace(9, 4, 18),
            predicted=18 * ("seven",),
        ),
        landing=torch.tensor([21, 9, 33, 40, 7, 26, 11, 93, 44, 16]),
        attacked=Attacked(
            clean=images[20:26], perturbed=(images[20:26] + noise).clamp(0, 1), before=names[20:26], after=("eight", "seven") * 3
        ),
        truth=Sheet(images=stamp(others[300:312]), predicted=12 * ("seven",)),
    )


def _view(images: Tensor, labels: Tensor, generator: torch.Generator) -> View:
    flat = images[:500].flatten(1)
    basis = torch.linalg.svd(flat - flat.mean(0), full_matrices=False).Vh[:2].T
    marked = torch.randn(97, 2, generator=generator) * 0.25 + torch.tensor([2.6, 2.9])
    groups = torch.cat([labels[:500], torch.full((97,), 10)])
    return View(points=torch.cat([(flat - flat.mean(0)) @ basis, marked]), groups=groups, names=(*CLASSES, "flagged"), highlight=10)
