"""Tables of anti-backdoor learning, for the page of results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pages import read_cards, share, table


def abl(folder: Path) -> Iterator[str]:
    """What is isolated, and what unlearning it does to other people's infected model."""
    yield "## Anti-backdoor learning\n"
    yield "The lowest losses after a few epochs, and what the method isolates by itself; precision and recall are the judge's.\n"
    cards = read_cards(folder / "abl")
    heads = ["attack", "rate", "loss", "epochs", "lowest 1 %: precision", "isolated", "precision", "recall"]
    yield from table(heads, [_isolation(card) for card in cards if "isolated" in card["metrics"]])
    for found in (card["metrics"] for card in cards if "before" in card["metrics"]):
        yield "The authors' own infected model (BadNets grid, WRN-16-1), unlearned; accuracy over all images / without the target's.\n"
        yield from table(["form", "epochs", "clean accuracy", "ASR"], [_state("before", found["before"], 0), *_forms(found)])
    for found in (card["metrics"] for card in read_cards(folder / "speed") if "times_plain_training" in card["metrics"]):
        yield "What it costs, by the processor's time: median [lowest, highest] over rounds.\n"
        rows = [[f"`abl:unlearn={form}`, times plain training", _ratio(each)] for form, each in found["times_plain_training"].items()]
        rows.append(["pass that isolates, times faster than one image at a time", _ratio(found["pass_times_faster_than_published"])])
        yield from table(["what", "ratio"], rows)


def _ratio(found: list[float]) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*found)


def _isolation(card: dict[str, Any]) -> list[str]:
    config, lowest, isolated = card["config"], card["metrics"]["lowest"], card["metrics"]["isolated"]
    rate = "-" if config["attack"] == "clean" else f"{config['rate']:g}"
    start = [f"`{config['attack']}`", rate, config["loss"], str(config["epochs"]), share(lowest["precision"])]
    return [*start, f"{isolated['count']:,}", share(isolated["precision"]), share(isolated["recall"])]


def _forms(found: dict[str, Any]) -> list[list[str]]:
    forms = {name: value for name, value in found.items() if "kept" in value}
    return [_state(name, value["kept"], len(value["epochs"])) for name, value in forms.items()]


def _state(name: str, state: dict[str, float], epochs: int) -> list[str]:
    return [name, str(epochs), f"{state['clean_accuracy']:.1%} / {state['clean_accuracy_others']:.1%}", f"{state['asr']:.2%}"]
