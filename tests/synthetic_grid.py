"""Cards of grids that nobody ran, of any size, as a store would give them."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ATTACKS = (
    "badnets", "blend", "wanet", "sig", "adap_blend", "adap_patch", "bpp", "ftrojan", "label_consistent", "tact", "input_aware", "lira",
    "low_frequency", "trojan_nn", "composite", "dfst", "latent", "wanet_noise",
)  # fmt: skip
EVASIONS = ("pgd:eps=0.03", "detector_pgd:steps=20")
DEFENSES = {
    "trainer": ("plain", "abl", "dbd", "asd", "vab", "cbd"),
    "screen": ("spectral_signature", "activation_clustering", "scan", "spectre", "beatrix", "strip_screen"),
    "detector": ("kde", "strip", "scale_up", "teco", "lid", "mahalanobis", "frequency"),
    "inspector": ("neural_cleanse", "mm_bd", "unicorn", "free_eagle"),
    "repair": ("fine_tuning", "fine_pruning", "nad", "anp", "clp", "i_bau", "ft_sam", "aft", "neural_cleanse+aft:epochs=20", "rnp"),
}
PROTOCOL = {"fit": 1000, "calibration": 500, "test": 4000, "fpr": 0.01, "robust_images": 200, "retrain": 0.01}
ROBUSTNESS = ["pgd:eps=0.03,steps=20"]
VERSIONS = {"python": "3.11.7", "mithridate": "0.1.0", "torch": "2.13.0"}
TESTED = 4000  # images


def grid(
    *,
    datasets: Sequence[str] = ("cifar10",),
    models: Sequence[str] = ("resnet18",),
    attacks: int = 10,
    rates: Sequence[float] = (0.1, 0.05),
    seeds: int = 3,
    defenses: Mapping[str, Sequence[str]] = DEFENSES,
) -> list[dict[str, Any]]:
    """One row a cell: clean twins, victims, and every defense on them; some attacks are dead, some cells failed."""
    draw = random.Random(0)
    strength = {name: draw.betavariate(1.3, 1.0) for names in defenses.values() for name in names}
    rows: list[dict[str, Any]] = []
    for dataset in datasets:
        for model in models:
            for seed in range(seeds):
                place = {"dataset": dataset, "images": None, "model": model, "trainer": "plain:epochs=60", "seed": seed}
                for attack, dose in _threats(attacks, rates):
                    rows += _bed(place | {"attack": attack, "dose": dose}, strength, defenses, draw)
    return rows


def many(cells: int) -> list[dict[str, Any]]:
    """About so many cells, at most: several data sets and models, eighty defenses."""
    wide = {role: tuple(f"{name}_{i}" for i in range(2 if role != "repair" else 4) for name in names) for role, names in DEFENSES.items()}
    datasets, models = ("cifar10", "gtsrb", "tiny", "fashion_mnist"), ("resnet18", "wrn_16_1", "vgg11")
    return grid(datasets=datasets, models=models, attacks=18, seeds=3, defenses=wide)[:cells]


def curves(key: str) -> dict[str, Any]:
    """Curves of a detector's card."""
    bend = 1 + int(key[:2], 16) / 40
    return {"roc": [[i / 99, 1 - (1 - i / 99) ** bend] for i in range(100)]}


def _threats(attacks: int, rates: Sequence[float]) -> Iterator[tuple[str | None, dict[str, Any]]]:
    yield None, {}
    for attack in ATTACKS[:attacks]:
        for rate in (None,) if attack in ("input_aware", "lira") else rates:
            yield attack, {"target": 0} | ({} if rate is None else {"rate": rate})


def _bed(
    place: dict[str, Any], strength: Mapping[str, float], defenses: Mapping[str, Sequence[str]], draw: random.Random
) -> Iterator[dict[str, Any]]:
    """A victim, and all that is judged on it."""
    attack = place["attack"]
    accuracy = draw.gauss(0.93 if place["dataset"] == "cifar10" else 0.88, 0.006)
    weak = attack is not None and _luck(place, "seed") < 0.08
    asr = draw.uniform(0.3, 0.8) if weak else draw.uniform(0.93, 1.0)
    metrics = {"clean_accuracy": _share(accuracy)} | ({"asr": _share(asr), "poisoned": 2500, "alive": not weak} if attack else {})
    yield row("victim", place, metrics, "done", seconds={"training": 300.0, "all": draw.uniform(200, 600)})
    dead = f"success rate {asr:.1%} is under 85%" if weak else ""
    judged = {"robustness": ROBUSTNESS, "protocol": PROTOCOL}
    nothing = place | {"defense": "none", "role": "none", "evasion": None} | judged
    yield row("judgment", nothing, _model(accuracy, asr, attack), "dead" if dead else "done", reason=dead)
    for role, names in defenses.items():
        for name in names:
            if role in ("trainer", "screen") and attack in ("input_aware", "lira"):
                continue
            for evasion in (None, *EVASIONS) if role == "detector" and attack is None else (None,):
                config = place | {"defense": name, "role": role, "evasion": evasion} | judged
                yield _judged(config, strength[name], (accuracy, asr), dead, draw)


def _judged(config: dict[str, Any], strength: float, before: tuple[float, float], dead: str, draw: random.Random) -> dict[str, Any]:
    if dead:
        return row("judgment", config, {}, "dead", reason=dead)
    if draw.random() < 0.01:
        return row("judgment", config, {}, "failed", reason="RuntimeError: the loss became NaN after 3 epochs")
    skill = min(1.0, max(0.0, strength * (0.4 + 0.6 * _luck({**config, "seed": 0}, "defense")) + draw.gauss(0, 0.03)))
    attacked = config["attack"] is not None or config["evasion"] is not None
    metrics = _metrics(config, skill, before, attacked, draw)
    time = 2 ** draw.gauss(4 + 3 * strength, 0.5)
    backward = config["role"] in ("repair", "inspector", "trainer")
    cost = {"forwards": int(1000 * time), "gradients": int(600 * time) * backward, "peak_memory": int(2e9 * (1 + strength))}
    return row("judgment", config, metrics, "done", seconds={"defense": time, "all": time * 1.3}, cost=cost)


def _metrics(config: Mapping[str, Any], skill: float, before: tuple[float, float], attacked: bool, draw: random.Random) -> dict[str, Any]:
    role, (accuracy, asr) = config["role"], before
    if role in ("trainer", "repair"):
        found = _model(accuracy - abs(draw.gauss(0, 0.05)) * skill, asr * (1 - skill), config["attack"])
        found |= {f"{name}_before": value for name, value in _model(accuracy, asr, config["attack"]).items()}
        return found | ({"der": 0.5 + skill / 2 - 0.01, "asr_reactivated": _share(0.3 * asr)} if config["attack"] else {})
    if role == "inspector":
        right = draw.random() < 0.3 + 0.7 * skill
        p_value = round(draw.random() * 0.05, 4)
        return {"right": right, "infected": right == attacked, "target": 0 if right and attacked else None, "p_value": p_value}
    found = {"fpr": _share(abs(draw.gauss(0.01, 0.004)))}
    if attacked:
        found |= {"tpr": _share(skill), "auroc": 0.5 + skill / 2}
        found |= {"precision_top": _share(skill)} if role == "screen" else {"successful": _share(asr)}
    return found


def _model(accuracy: float, asr: float, attack: str | None) -> dict[str, Any]:
    robust = {f"robust {spec}": _share(0.02 + accuracy / 30) for spec in ROBUSTNESS}
    poisoned = {"asr": _share(asr), "recovered_accuracy": _share(accuracy * (1 - asr))} if attack else {}
    return {"clean_accuracy": _share(accuracy)} | poisoned | robust


def _share(value: float) -> list[float]:
    hits = round(min(max(value, 0.0), 1.0) * TESTED)
    share, half = hits / TESTED, 1.96 * math.sqrt(0.25 * hits / TESTED * (1 - hits / TESTED) + 1e-6) / math.sqrt(TESTED / 4)
    return [share, max(0.0, share - half), min(1.0, share + half)]


def _luck(config: Mapping[str, Any], salt: str) -> float:
    """A number in [0, 1) that one and the same configuration always has."""
    return int(hashlib.sha256(f"{salt}{json.dumps(config, sort_keys=True)}".encode()).hexdigest()[:8], 16) / 16**8


def row(kind: str, config: dict[str, Any], metrics: dict[str, Any], status: str = "done", **rest: Any) -> dict[str, Any]:
    """One card; its key is made of what it is about."""
    key = hashlib.sha256(f"{kind}{json.dumps(config, sort_keys=True)}".encode()).hexdigest()[:24]
    card = {"key": key, "kind": kind, "config": config, "metrics": metrics, "status": status, "reason": ""}
    made = {"versions": VERSIONS, "hardware": "NVIDIA H200", "commit": "5d59ece"}
    return card | {"seconds": {"all": 0.5}, "cost": {"peak_memory": 500_000_000}} | made | rest
