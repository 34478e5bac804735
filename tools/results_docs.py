"""Write `docs/results.md`, and the table between README.md's markers, from the cards in `results/`; `--check` only compares.

No number of either is typed by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import abl_tables
import detector_tables
import grid_tables
from mithridate.bench import Store
from mithridate.infect import ALIVE_ASR, ALIVE_COST
from pages import read_cards, share, table
from published_tables import others

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- table of results/grids/{}: tools/results_docs.py -->", "<!-- end of table -->"
SHOWN = {"core": grid_tables.summary, "detection": grid_tables.detectors}  # in README.md
STRONG_ASR = 0.9
MAKERS = ("ours", "torchattacks", "reference")
INTRO = """# Results

Measured, with misses and losing rows included. Each row is a card in `results/` that holds its settings, seeds, versions and
hardware; this page is written from them by `python tools/results_docs.py`. Rates carry 95 % intervals where the cards do.
"""


def page(folder: Path) -> str:
    """The whole page for a folder of cards."""
    sections = (
        victims,
        grids,
        detector_tables.jin,
        abl_tables.abl,
        audits,
        agreement,
        adaptive,
        demo,
        speed,
        detector_tables.costs,
        robustness,
    )
    return "\n".join([INTRO, *("\n".join(section(folder)) for section in sections)])


def victims(folder: Path) -> Iterator[str]:
    """Victims made by `mithridate infect`, each beside its clean twin."""
    cards = sorted(read_cards(folder / "victims"), key=_attack)
    twins = {_twin(card): card["metrics"]["clean_accuracy"][0] for card in cards if card["config"]["trigger"] is None}
    yield "## Victims\n"
    yield "Poisoned, trained and judged by `mithridate infect`. ASR: triggered test images not of the target class (of the source"
    yield "classes, where an attack has any) that get the target. Cost: points of accuracy under the clean twin, trained alike. Dead:"
    yield f"ASR under {ALIVE_ASR:.0%}, or a cost over {100 * ALIVE_COST:.0f} points. Leak: ASR over classes that are no sources."
    yield "Cross: accuracy with another image's trigger, or a noisy one.\n"
    yield from _strong([(card, cost) for card in cards if (cost := _cost(card, twins)) is not None])
    heads = ["data", "model", "epochs", "attack", "rate", "clean accuracy", "cost", "ASR", "leak", "cross", "alive"]
    yield from table(heads, [_victim(card, _cost(card, twins)) for card in cards])


def _attack(card: dict[str, Any]) -> tuple[Any, ...]:
    config = card["config"]
    return (*map(str, _twin(card)), config["trigger"] or "", str(config["target"]), -(config["rate"] or 0))


def _twin(card: dict[str, Any]) -> tuple[Any, ...]:
    """What a victim shares with its clean twin."""
    config = card["config"]
    return (config["dataset"], config["architecture"], config["trainer"]["epochs"], config["seed"])


def _strong(judged: Sequence[tuple[dict[str, Any], float]]) -> Iterator[str]:
    """How many of the victims that have a clean twin are strong ones, rate by rate."""
    for rate in sorted({card["config"]["rate"] or 0 for card, _ in judged}, reverse=True):
        these = [(card["metrics"], cost) for card, cost in judged if (card["config"]["rate"] or 0) == rate]
        strong = sum(found["asr"][0] >= STRONG_ASR and _alive(found, cost) == "yes" for found, cost in these)
        who = f"Rate {rate:.3g}" if rate else "Attackers who train the model"
        yield f"- {who}: of {len(these)} victims with a clean twin, {strong} are alive with an ASR of {STRONG_ASR:.0%} or more."
    yield ""


def _cost(card: dict[str, Any], twins: dict[tuple[Any, ...], float]) -> float | None:
    """Accuracy under the clean twin's; None of a twin, or where there is none."""
    twin = twins.get(_twin(card))
    return None if twin is None or card["config"]["trigger"] is None else twin - float(card["metrics"]["clean_accuracy"][0])


def _victim(card: dict[str, Any], cost: float | None) -> list[str]:
    config, found = card["config"], card["metrics"]
    start = [config["dataset"], config["architecture"], str(config["trainer"]["epochs"]), _named(config)]
    rate = "-" if not config["rate"] else f"{config['rate']:.3g}"
    shares = [share(found.get(name)) for name in ("asr", "leak", "cross_accuracy")]
    costs = "-" if cost is None else f"{100 * cost:.1f}"
    return [*start, rate, share(found["clean_accuracy"]), costs, *shares, _alive(found, cost)]


def _named(config: dict[str, Any]) -> str:
    """The attack's specification, and what of the dose is not said by it."""
    if config["trigger"] is None:
        return "none (clean twin)"
    target = config["target"]
    extras = ["all-to-all"] if isinstance(target, list) else []
    extras += ["clean label"] if config.get("clean_label") else []
    extras += [f"sources {','.join(map(str, config['sources']))}"] if config.get("sources") else []
    return f"`{config['trigger']}`" + (f" ({'; '.join(extras)})" if extras else "")


def _alive(found: dict[str, Any], cost: float | None) -> str:
    if "asr" not in found:
        return "-"
    reasons = ["ASR"] if found["asr"][0] < ALIVE_ASR else []
    reasons += ["cost"] if cost is not None and cost > ALIVE_COST else []
    return f"**dead** ({', '.join(reasons)})" if reasons else "yes"


def grids(folder: Path) -> Iterator[str]:
    """What `mithridate bench` made of each plan."""
    yield "## Grids\n"
    yield "Made by `mithridate bench` under [the protocol](protocol.md). " + " ".join(grid_tables.LEGEND) + "\n"
    for store in sorted(path for path in (folder / "grids").glob("*") if path.is_dir()):
        rows = list(Store(store).rows())
        counts = ", ".join(f"{sum(row['status'] == status for row in rows)} {status}" for status in ("done", "dead", "failed"))
        yield f"### {store.name}: {len(rows)} cells, {counts}\n"
        for title, heads, body in grid_tables.tables(rows):
            yield f"{title}\n"
            yield from table(heads, body)
        heads, body = grid_tables.detectors(rows)
        if body:
            yield "Detectors over all threats, backdoors and adversarial examples, that work\n"
            yield from table(heads, body)
            yield grid_tables.realised(rows)
        heads, body = abl_tables.isolated(Store(store))
        if body:
            yield "What trainers held for poisoned, in percent, and how fast poison and other images were learned while they looked\n"
            yield from table(heads, body)
        yield from others(ROOT / "grids" / f"{store.name}.toml", rows)


def readme(text: str, folder: Path) -> str:
    """README.md with the summary of each grid of `SHOWN` between its markers."""
    for name, summary in SHOWN.items():
        before, begin, rest = text.partition(BEGIN.format(name))
        _, _, after = rest.partition(END)
        heads, body = summary(Store(folder / "grids" / name).rows())
        text = "\n".join([f"{before}{begin}\n", *table(heads, body), f"{END}{after}"]) if begin else text
    return text


def audits(folder: Path) -> Iterator[str]:
    """Audits of victims and of third-party models, judged."""
    yield "## Audits\n"
    yield "1,000 clean images for the auditor, others for the judge, nothing tuned per model. TPR and FPR of the guard at an asked 1 %;"
    yield "screened: training images called poisoned, where the audit was given them.\n"
    heads = [
        "model",
        "truth",
        "verdict",
        "right",
        "p",
        "accuracy",
        "repaired",
        "ASR",
        "repaired",
        "KDE AUROC",
        "TPR",
        "FPR",
        "screened",
        "minutes",
    ]
    rows = [_audit(card) for name in ("third_party", "audits") for card in read_cards(folder / name)]
    yield from table(heads, rows)


def _audit(card: dict[str, Any]) -> list[str]:
    found = card["metrics"]
    truth, repair = found["truth"] or {}, found["repair"]
    known = "not infected" if found["true_target"] is None else f"class {found['true_target']}"
    said = f"class {found['target']}" if found["infected"] else "not infected"
    minutes = f"{sum(card['seconds'].values()) / 60:.1f}"
    accuracy = [truth.get(key, repair[key]) for key in ("clean_accuracy_before", "clean_accuracy_after")]
    auroc = f"{truth['auroc']:.3f}" if truth else "-"
    asr = [share(truth.get("asr_before")), share(truth.get("asr_after"))]
    start = [card["config"]["model"], known, said, "yes" if found["right"] else "**no**", f"{found['p_value']:.2g}"]
    screened = f"{found['training']['count']:,}" if found.get("training") else "-"
    return [*start, *map(share, accuracy), *asr, auroc, share(truth.get("tpr")), share(truth.get("fpr")), screened, minutes]


def agreement(folder: Path) -> Iterator[str]:
    """Our evasions beside those of other packages."""
    cards = {
        path.stem: card for path, card in zip(sorted((folder / "agreement").glob("*.json")), read_cards(folder / "agreement"), strict=True)
    }
    yield "## Agreement with other packages\n"
    yield "Same model, images, budget and steps; one image of 200 is 0.5 points. First the accuracy that is left under attack.\n"
    rows = []
    for card in (card for name, card in cards.items() if name not in ("pgd", "minimal_norm")):
        config = card["config"]
        budget = f"{config['norm']} {config['eps']:.4f}"
        for part, makers in card["metrics"].items():
            if isinstance(makers, dict):
                rows.append([config["model"], budget, str(config["count"]), part, *(_maker(makers.get(each)) for each in MAKERS)])
    yield from table(["model", "budget", "images", "attack", *MAKERS], rows)
    if "pgd" in cards:
        config = cards["pgd"]["config"]
        rows = [
            [config["model"], budget.replace("_of_", "/"), str(config["images"]), f"PGD-{config['steps']}", *map(share, found.values())]
            for budget, found in cards["pgd"]["metrics"].items()
        ]
        names = next(iter(cards["pgd"]["metrics"].values()))
        yield from table(["model", "budget", "images", "attack", *(name.replace("_", " ") for name in names)], rows)
    if "minimal_norm" in cards:
        yield "Smallest change in L2 that fools, over 32 images.\n"
        rows = [
            [name.replace("_", " "), share(row["fooled"]), f"{row['mean_l2']:.4f}", f"{row['processor_seconds']:.1f}"]
            for name, row in cards["minimal_norm"]["metrics"].items()
        ]
        yield from table(["attack", "fooled", "mean L2", "processor seconds"], rows)


def _maker(found: dict[str, float] | None) -> str:
    return "-" if found is None else f"{found['robust_accuracy']:.1%} ({found['cpu_seconds']:.1f} s)"


def adaptive(folder: Path) -> Iterator[str]:
    """Attacks that know the detectors."""
    yield "## Attacks on detectors\n"
    for card in read_cards(folder / "adaptive"):
        config, found = card["config"], card["metrics"]
        yield f"`{config['detector']}` on {config['model']}, threshold for {config['fpr']:.0%} false positives; clean images flagged:"
        yield f"{share(found['clean_flagged'])}. {config['images']} images. Unseen: fooled and not flagged.\n"
        heads = ["attack", *(f"{what}, {eps}/255" for eps in config["eps_255"] for what in ("fooled", "unseen"))]
        rows = []
        for name, spec in config["attacks"].items():
            cells = [found[f"{name}_{eps}"] for eps in config["eps_255"]]
            title = spec if spec.startswith("pgd") else name.replace("_", " ")
            rows.append([f"`{title}`", *(share(cell[what]) for cell in cells for what in ("fooled", "unseen"))])
        yield from table(heads, rows)


def demo(folder: Path) -> Iterator[str]:
    """The demo over seeds."""
    yield "## The demo over seeds\n"
    for card in read_cards(folder / "demo"):
        found = card["metrics"]
        yield f"Right verdict and class on infected models: {share(found['infected_right'])};"
        yield f"on their clean twins: {share(found['clean_right'])}.\n"
        heads = ["seed", "infected", "verdict", "right", "p", "accuracy", "repaired", "ASR", "repaired", "TPR", "FPR"]
        yield from table(heads, [_demo_row(row) for row in found["rows"]])


def _demo_row(row: dict[str, Any]) -> list[str]:
    said = f"class {row['target']}" if row["said"] else "not infected"
    start = [str(row["seed"]), "yes" if row["infected"] else "no", said, "yes" if row["right"] else "**no**", f"{row['p_value']:.2g}"]
    rest = ("clean_accuracy_before", "clean_accuracy_after", "asr_before", "asr_after", "tpr", "fpr")
    return [*start, *(share(row.get(key)) for key in rest)]


def speed(folder: Path) -> Iterator[str]:
    """Ratios measured in one run, and what poisoning takes."""
    yield "## Speed\n"
    rows, cards = [], read_cards(folder / "speed")
    for card in cards:
        for name, value, where in _ratios(card["metrics"]):
            median, low, high = value
            rows.append([f"{name.replace('_', ' ')}{where}", f"{median:.2f}", f"{low:.2f}", f"{high:.2f}", card["hardware"]])
    yield from table(["times faster", "median", "lowest", "highest", "hardware"], rows)
    for card in (card for card in cards if "triggers" in card["metrics"]):
        load, images = card["config"]["load"], card["config"]["images"]
        yield f"Seconds to poison {images:,} CIFAR-10 images, wall clock at a load of {load:.1f} on two cores, and the processor's own.\n"
        heads = ["trigger", "10 %: wall", "slowest", "processor", "100 %: wall", "slowest", "processor"]
        yield from table(heads, [_poisoning(name, row) for name, row in card["metrics"]["triggers"].items()])


def _ratios(metrics: dict[str, Any]) -> Iterator[tuple[str, list[float], str]]:
    """Name, [median, lowest, highest] and circumstances of each ratio of a card."""
    for name, value in metrics.items():
        if isinstance(value, dict) and "fastest_other" in value:
            yield "PGD-10 over the fastest package", value["ours_over_fastest_other"], f", {name.replace('_of_', '/').replace('_', ' ')}"
        elif "_over_" in name and isinstance(value, list):
            yield name, value, ""


def _poisoning(name: str, row: dict[str, dict[str, list[float]]]) -> list[str]:
    cells = [f"`{name}`"]
    for rate in ("rate_0.1", "rate_1.0"):
        found = row.get(rate)
        cells += ["-"] * 3 if found is None else [f"{found['wall'][0]:.2f}", f"{found['wall'][2]:.2f}", f"{found['processor'][0]:.2f}"]
    return cells


def robustness(folder: Path) -> Iterator[str]:
    """What survives being killed."""
    yield "## Killed and run again\n"
    cards = read_cards(folder / "robustness")
    rows = [[card["config"].get("command", card["kind"]), name, str(value)] for card in cards for name, value in _flat(card["metrics"])]
    yield from table(["what", "measure", "value"], rows)


def _flat(metrics: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name} ")
        elif not isinstance(value, list):
            yield f"{prefix}{name}".replace("_", " "), value


def main() -> int:
    """Run as a script: 1 when `--check` finds one of the pages out of date."""
    texts = {PAGE: page(ROOT / "results"), README: readme(README.read_text("utf-8"), ROOT / "results")}
    if "--check" in sys.argv[1:]:
        return int(any(not path.exists() or path.read_text("utf-8") != text for path, text in texts.items()))
    for path, text in texts.items():
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
