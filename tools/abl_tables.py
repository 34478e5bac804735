"""Tables of anti-backdoor learning, for the page of results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mithridate import methods
from mithridate.bench import Store
from pages import read_cards, share, table


def abl(folder: Path) -> Iterator[str]:
    """What is isolated, and what unlearning it does to other people's infected model."""
    yield "## Anti-backdoor learning\n"
    yield "The lowest losses after a few epochs, and what the method isolates by itself; precision and recall are the judge's.\n"
    cards = read_cards(folder / "abl")
    heads = ["attack", "rate", "loss", "epochs", "lowest 1 %: precision", "isolated", "precision", "recall"]
    yield from table(heads, [_isolation(card) for card in cards if "isolated" in card["metrics"]])
    yield "Small sets: how many clean trainings isolate anything, and in how many with a tenth poisoned (BadNets) poison is found.\n"
    heads = ["images", "batches of", "early steps", "alarms on clean ones", "poison found"]
    yield from table(heads, [_small(card) for card in cards if "alarms" in card["metrics"]])
    yield "Plain training on what is left when exactly the poison is left out: what a defense that makes no mistake comes to.\n"
    heads = ["attack", "rate", "images left", "clean accuracy", "of images that count for the ASR", "ASR"]
    yield from table(heads, [_without(card) for card in cards if "images" in card["metrics"]])
    for found in (card["metrics"] for card in cards if "before" in card["metrics"]):
        yield "The authors' own infected model (BadNets grid, WRN-16-1), unlearned; accuracy over all images / without the target's.\n"
        yield from table(["form", "epochs", "clean accuracy", "ASR"], [_state("before", found["before"], 0), *_forms(found)])
    for card in (each for each in read_cards(folder / "speed") if "times_plain_training" in each["metrics"]):
        found, precision = card["metrics"], card["config"]["precision"]
        yield "What it costs, by the processor's time: median [lowest, highest] over rounds.\n"
        rows = [[f"`abl:unlearn={form}`, times plain training", _ratio(each)] for form, each in found["times_plain_training"].items()]
        faster = _ratio(found["pass_times_faster_than_published"])
        rows.append([f"pass that isolates, in {precision}, times faster than one image at a time", faster])
        yield from table(["what", "ratio"], rows)


def isolated(store: Store) -> tuple[list[str], list[list[str]]]:
    """Heads, and one row a training of a grid that says what it isolated, with the mean losses of both populations, epoch by epoch."""
    heads = ["data", "attack", "rate", "trainer", "isolated", "precision", "recall", "loss of the poison", "of the others"]
    rows = [row for row in store.rows() if "isolated" in row["metrics"]]
    rows.sort(key=lambda row: (row["config"]["dataset"], str(row["config"]["attack"]), row["config"]["dose"].get("rate", 0), row["key"]))
    return heads, [_training(row, store.read(row["key"]).curves) for row in rows]


def _training(row: Mapping[str, Any], curves: Mapping[str, list[float]]) -> list[str]:
    config, found = row["config"], row["metrics"]
    attack, rate = "none" if config["attack"] is None else f"`{config['attack']}`", config["dose"].get("rate")
    threat = [config["dataset"], attack, "-" if rate is None else f"{rate:g}", f"`{methods.brief(config['defense'])}`"]
    shares = [f"{100 * found[name][0]:.1f}" if name in found else "-" for name in ("isolated", "isolated_precision", "isolated_recall")]
    return [*threat, *shares, *(" ".join(f"{loss:.2g}" for loss in curves[name]) or "-" for name in ("loss_poisoned", "loss_others"))]


def _ratio(found: list[float]) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*found)


def _isolation(card: dict[str, Any]) -> list[str]:
    config, lowest, isolated = card["config"], card["metrics"]["lowest"], card["metrics"]["isolated"]
    rate = "-" if config["attack"] == "clean" else f"{config['rate']:g}"
    start = [f"`{config['attack']}`", rate, config["loss"], str(config["epochs"]), share(lowest["precision"])]
    return [*start, f"{isolated['count']:,}", share(isolated["precision"]), share(isolated["recall"])]


def _small(card: dict[str, Any]) -> list[str]:
    config, found = card["config"], card["metrics"]
    counts = ["{} of {}".format(*found[name]) for name in ("alarms", "found")]
    return [config["images"], str(config["batch_size"]), str(found["steps"]), *counts]


def _without(card: dict[str, Any]) -> list[str]:
    config, found = card["config"], card["metrics"]
    named = f"`{config['trigger']}`" + (" (clean label)" if config["clean_label"] else "")
    rates = [share(found[name]) for name in ("clean_accuracy", "clean_accuracy_attacked", "asr")]
    return [named, f"{config['rate']:g}", f"{found['images']:,}", *rates]


def _forms(found: dict[str, Any]) -> list[list[str]]:
    forms = {name: value for name, value in found.items() if "kept" in value}
    return [_state(name, value["kept"], len(value["epochs"])) for name, value in forms.items()]


def _state(name: str, state: dict[str, float], epochs: int) -> list[str]:
    return [name, str(epochs), f"{state['clean_accuracy']:.1%} / {state['clean_accuracy_others']:.1%}", f"{state['asr']:.2%}"]
