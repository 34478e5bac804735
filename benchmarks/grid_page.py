"""The page of a large grid: how long it takes to build, to open, and to answer the reader, in Chromium without a window.

    python benchmarks/grid_page.py [--cells 100000] [--rounds 5]

Prints JSON and writes a card to results/speed/. The cards are synthetic (tests/synthetic_grid.py). Times are [median, lowest, highest]
in milliseconds: `handler` until the page can listen again, `longest_task` the longest stretch without a pause that the change caused.
On a busy machine the wall clock tells of the others too; its load stands beside.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import synthetic_grid
from browser import Browser
from mithridate.card import Card
from mithridate.report.grid import Grid, render

CLICK = "document.querySelectorAll({!r})[{}].click()"
CHOOSE = "(each => {{ each.value = {!r}; each.dispatchEvent(new Event('change')) }})(document.querySelector({!r}))"
TYPE = "(each => {{ each.value = {!r}; each.dispatchEvent(new Event('input')) }})(document.querySelector('#filters input[type=search]'))"
RATE = CLICK.format("#filters details[data-name=rate] input", 1)
INTERACTIONS = {  # name -> (part of the page in sight, what the reader does, what takes it back)
    "standings: filter": ("standings", RATE, RATE),
    "heat map: filter": ("map", RATE, RATE),
    "heat map: text": ("map", TYPE.format("badnets resnet"), TYPE.format("")),
    "heat map: metric": ("map", CHOOSE.format("seconds", "#map select"), CHOOSE.format("asr", "#map select")),
    "heat map: scroll": ("map", "document.querySelector('.map').scrollTop = 4000", "document.querySelector('.map').scrollTop = 0"),
    "trade-off: filter": ("tradeoff", RATE, RATE),
    "costs: filter": ("costs", RATE, RATE),
    "table: filter": ("cards-table", RATE, RATE),
    "table: sort": ("cards-table", CLICK.format(".heads button", 7), CLICK.format(".heads button", 0)),
    "table: scroll": ("cards-table", "document.querySelector('.cards').scrollTop = 1e6", "document.querySelector('.cards').scrollTop = 0"),
    "table: open a card": ("cards-table", CLICK.format(".line", 0), "document.querySelector('#panel').close()"),
}
TIMED = """(async () => {
  const tasks = [];
  const watch = new PerformanceObserver((list) => tasks.push(...list.getEntries().map((each) => each.duration)));
  watch.observe({ type: "longtask" });
  const begun = performance.now();
  %s;
  const handler = performance.now() - begun;
  await new Promise((resume) => setTimeout(resume, 800));
  watch.disconnect();
  return [handler, Math.max(handler, ...tasks)];
})()"""


def spread(values: list[float]) -> list[float]:
    """[median, lowest, highest]."""
    return [round(each, 1) for each in (statistics.median(values), min(values), max(values))]


def opening(browser: Browser, page: Path, rounds: int) -> list[float]:
    """Milliseconds from asking for the page until it is drawn and listens; one round to warm up is not counted."""
    found = []
    for _ in range(rounds + 1):
        browser.open(page)
        found.append(browser.run("performance.getEntriesByName('ready')[0].startTime"))
    return spread(found[1:])


def interactions(browser: Browser, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of everything that a reader does; one round to warm up is not counted."""
    found = {}
    for name, (part, do, undo) in INTERACTIONS.items():
        browser.run(f"document.getElementById({part!r}).scrollIntoView()")
        time.sleep(1)
        times = []
        for _ in range(rounds + 1):
            times.append(browser.run(TIMED % do))
            browser.run(undo)
            time.sleep(0.8)
        handlers, longest = zip(*times[1:], strict=True)
        found[name] = {"handler": spread(list(handlers)), "longest_task": spread(list(longest))}
    return found


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "speed")
    args = parser.parse_args()
    rows = synthetic_grid.many(args.cells)
    load, begun, processor = os.getloadavg()[0], time.perf_counter(), time.process_time()
    html = render(Grid(title="Speed", rows=rows, curves=synthetic_grid.curves)).html
    metrics: dict[str, object] = {"build_seconds": time.perf_counter() - begun, "build_processor_seconds": time.process_time() - processor}
    metrics["megabytes"] = len(html.encode()) / 1e6
    with tempfile.TemporaryDirectory() as folder, Browser(Path(folder)) as browser:
        page = Path(folder) / "page.html"
        page.write_text(html, "utf-8")
        config = {"cells": len(rows), "rounds": args.rounds, "window": [1280, 900], "load": load}
        config["browser"] = browser.tell("Browser.getVersion")["product"]
        metrics["open"] = opening(browser, page, args.rounds)
        browser.until("document.documentElement.dataset.drawn")
        metrics["interactions"] = interactions(browser, args.rounds)
    print(json.dumps({"config": config, "metrics": metrics}, indent=2))
    Card(kind="speed", config=config, metrics=metrics).write(args.out / "grid_page.json")


if __name__ == "__main__":
    main()
