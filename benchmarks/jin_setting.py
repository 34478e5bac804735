"""The setting of Jin et al. rebuilt: their network on MNIST and Fashion-MNIST, a white 4 x 4 square, and targeted C&W examples.

    python benchmarks/jin_setting.py DATASET [--seed 0]

The images come from MITHRIDATE_DATA. One infected model a seed; each detector is fitted once, on 1,000 clean test images, and judged with
one threshold on both threats: triggered images that reach the target class, and adversarial examples, towards a random class each, that
reach theirs. Writes a card to results/detectors/.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mithridate import datasets, infect, methods, metrics
from mithridate.calibrate import threshold
from mithridate.card import Card
from mithridate.crossfit import score_all
from mithridate.data import Samples, to_float
from mithridate.metrics import Rate
from mithridate.nn.modes import predict
from mithridate.nn.taps import trace_all
from mithridate.roles import Goal
from mithridate.threats.dose import Dose
from mithridate.threats.poison import stamp

TRIGGER, RATE, TRAINER = "badnets:size=4,pattern=white,margin=1", 0.0909, "plain:epochs=5,lr=0.02"
CW = "cw:searches=3,lr=0.1,c=1"  # pixels that are all black or all white leave tanh space's ends at no smaller rate
DETECTORS = (
    "mutation",
    "mutation:statistic=rate",
    "mutation:sequential=true",
    "activation_space",
    "kde",
    "lid",
    "lid:conditional=true",
    "lid:conditional=true,layers=1.9@input",  # neighbors of the predicted class only, where the classes are told apart best
    "mahalanobis",
    "squeezing",
    "unified",
)


def share(hits: Tensor) -> list[float]:
    """A share with its 95 % interval."""
    rate = Rate(int(hits.sum()), len(hits))
    return [rate.value, *rate.interval]


def adversarial(model: Any, samples: Samples, seed: int) -> tuple[Samples, list[float]]:
    """Examples that reach a random wrong class each, and how many do, of those classified rightly."""
    right = samples[predict(model, samples).argmax(1) == samples.labels]
    classes = len(samples.classes)
    shift = 1 + torch.randint(classes - 1, (len(right),), generator=torch.Generator().manual_seed(seed))
    target = (right.labels + shift) % classes
    made = Samples(methods.parse(CW, "evasion").perturb(model, to_float(right.images), right.labels, Goal(target)), right.labels)
    works = predict(model, made).argmax(1) == target
    return made[works], share(works)


def judged(spec: str, model: Any, parts: tuple[Samples, ...], malicious: dict[str, Samples], seed: int) -> dict[str, Any]:
    """One detector's numbers for each threat, under the same thresholds."""
    fit, calibration, test = parts
    scorer, device = methods.parse(spec, "detector").fit(model, fit, seed=seed), torch.device("cpu")
    known, clean = score_all(scorer, calibration, device), score_all(scorer, test, device)
    cuts = {"": threshold(known, 0.01), "_5": threshold(known, 0.05)}
    found: dict[str, Any] = {f"fpr{name}": share(cut.flag(clean)) for name, cut in cuts.items()}
    for threat, samples in malicious.items():
        scores = score_all(scorer, samples, device)
        truth = torch.arange(len(clean) + len(scores)) >= len(clean)
        found[threat] = {"auroc": metrics.auroc(torch.cat([clean, scores]), truth)}
        found[threat] |= {f"tpr{name}": share(cut.flag(scores)) for name, cut in cuts.items()}
    if "sequential" in spec:
        used = scorer.watch(trace_all(model, test, scorer.layers)).used.float()
        found["mutants"] = {"mean": float(used.mean()), "of": methods.parse(spec, "detector").mutants}
    return found


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=400, help="that adversarial examples are made of")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "detectors")
    args = parser.parse_args()
    torch.set_num_threads(1)
    started, source = time.perf_counter(), datasets.load(args.dataset)
    trainer, trigger = methods.parse(TRAINER, "trainer"), methods.parse(TRIGGER, "trigger")
    plan = infect.Plan(architecture="jin_cnn", attack=trigger, dose=Dose(rate=RATE), trainer=trainer, seed=args.seed)
    victim = infect.make(plan, source)
    fit, calibration, test, attacked, _ = source.test.split(1000, 500, 2000, args.images, seed=args.seed)
    stamped = stamp(trigger, test[test.labels != 0])
    opened = predict(victim.model, stamped).argmax(1) == 0
    examples, fooled = adversarial(victim.model, attacked, args.seed)
    found: dict[str, Any] = {
        "clean_accuracy": share(predict(victim.model, test).argmax(1) == test.labels),
        "asr": share(opened),
        "fooled": fooled,
    }
    malicious = {"backdoor": stamped[opened], "adversarial": examples}
    for spec in DETECTORS:
        found[spec] = judged(spec, victim.model, (fit, calibration, test), malicious, args.seed)
        print(spec, {name: round(found[spec][name]["auroc"], 4) for name in malicious}, found[spec].get("mutants", ""), flush=True)
    config = {
        "dataset": args.dataset,
        "model": "jin_cnn",
        "trainer": TRAINER,
        "attack": TRIGGER,
        "rate": RATE,
        "evasion": CW,
        "seed": args.seed,
    }
    card = Card(kind="detectors", config=config, metrics=found, seconds={"all": time.perf_counter() - started})
    card.write(args.out / f"jin-{args.dataset}-seed{args.seed}.json")


if __name__ == "__main__":
    main()
