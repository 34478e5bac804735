"""Kill the driver or a worker of a grid with SIGKILL at random moments, go on after each, and compare with an undisturbed run.

    python benchmarks/grid_kill.py [--kills 20] [--seed 0] [--workers 2]

A killed driver must take its workers along and is started again on the same store; a killed worker must be noticed by its driver.
After each kill of a driver every card must be whole and right. A grid that is done is compared cell for cell, files included, and
the kills go on with an empty store until there were enough. The result goes to results/robustness/grid_kill.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mithridate.bench import Plan, Store, cells, run
from mithridate.bench.engines import open_engine
from mithridate.bench.plan import Threat
from mithridate.bench.protocol import Protocol
from mithridate.card import Card

ROOT = Path(__file__).parents[1]
PLAN = Plan(
    title="kills",
    datasets=("digits",),
    models=("lenet",),
    threats=(Threat(method="badnets"), Threat(method="adap_patch"), Threat(method="detector_pgd:eps=0.2,steps=5")),
    defenses=("kde", "spectral_signature", "neural_cleanse:steps=20+aft:epochs=2", "aft:epochs=2", "plain:epochs=3"),
    trainer="plain:epochs=10,lr=0.05",
    rates=(0.1, 0.15),
    protocol=Protocol(fit=150, calibration=110, robust_images=30),
)
VARYING = ("seconds", "versions", "hardware", "commit", "cost")


@dataclass
class Tally:
    """What the kills did, counted."""

    drivers: int = 0
    workers: int = 0
    too_late: int = 0
    grids: int = 0
    cards_checked: int = 0
    checkpoints: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """Of both kinds."""
        return self.drivers + self.workers


def drive(store: Store, workers: int) -> None:
    """Do the grid."""
    with open_engine("local", store.folder, workers=workers) as engine:
        run(cells(PLAN), store, engine)


def start(store: Store, workers: int) -> subprocess.Popen[bytes]:
    """A driver in a process of its own."""
    return subprocess.Popen([sys.executable, __file__, "--drive", str(store.folder), "--workers", str(workers)])


def card_of(store: Store, key: str) -> dict[str, Any]:
    """A card without what depends on the clock and the machine."""
    return {name: value for name, value in dataclasses.asdict(store.read(key)).items() if name not in VARYING}


def files_of(store: Store, key: str) -> dict[str, str]:
    """Fingerprints of a cell's files; of cards among them only that they are there."""
    paths = sorted(path for path in store.files(key).rglob("*") if path.is_file())
    return {path.name: "" if path.suffix == ".json" else hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def children(pid: int) -> list[int]:
    """The workers of a driver, as Linux tells them."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(place.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"spawn_main" in place.joinpath("cmdline").read_bytes():
                found.append(int(place.name))
        except (OSError, ValueError):
            continue  # it has ended meanwhile
    return found


def alive(pid: int) -> bool:
    """Whether a process computes."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def await_moment(driver: subprocess.Popen[bytes], store: Store, draw: random.Random, pace: float) -> None:
    """Until some cards more are there and a bit of the next is done; or a part of what a start takes."""
    wanted, begun = len(store.keys()) + draw.choice((0, 1, 2, 4)), time.monotonic()
    while driver.poll() is None and len(store.keys()) < wanted and time.monotonic() - begun < 120:
        time.sleep(0.01)
    time.sleep(draw.uniform(0, 2 * pace))


def kill_driver(driver: subprocess.Popen[bytes], tally: Tally) -> None:
    """Kill it, and see its workers go."""
    workers = children(driver.pid)
    driver.kill()
    driver.wait()
    tally.drivers += 1
    end = time.monotonic() + 30
    while any(alive(pid) for pid in workers):
        if time.monotonic() > end:
            tally.faults.append(f"workers outlived driver {tally.drivers}")
            return
        time.sleep(0.05)


def kill_worker(driver: subprocess.Popen[bytes], draw: random.Random, tally: Tally) -> None:
    """Kill one of its workers; the driver itself goes on."""
    workers = children(driver.pid)
    if workers:
        os.kill(draw.choice(workers), signal.SIGKILL)
        tally.workers += 1


def check(store: Store, reference: Store, tally: Tally) -> None:
    """Every card that is there must be whole and right."""
    for key in sorted(store.keys()):
        tally.cards_checked += 1
        if card_of(store, key) != card_of(reference, key):
            tally.faults.append(f"card {key} differs after kill {tally.kills}")
    tally.checkpoints += len(list(store.folder.glob("files/*/checkpoint.safetensors")))


def ordeal(store: Store, reference: Store, options: argparse.Namespace, draw: random.Random, tally: Tally) -> None:
    """One grid, killed until it is done or there were enough kills, then finished and compared."""
    wanted = sorted(reference.keys())
    pace = sum(reference.read(key).seconds["all"] for key in wanted) / len(wanted)
    driver = start(store, options.workers)
    while tally.kills < options.kills:
        await_moment(driver, store, draw, pace)
        if driver.poll() is not None:
            tally.too_late += 1
            break
        if draw.random() < 0.5:
            kill_worker(driver, draw, tally)
            continue
        kill_driver(driver, tally)
        check(store, reference, tally)
        print(f"kill {tally.kills}: {len(store.keys())} cards there, {len(tally.faults)} faults", flush=True)
        driver = start(store, options.workers)
    if driver.wait():
        tally.faults.append(f"driver ended with {driver.returncode}")
    check(store, reference, tally)
    tally.grids += 1
    if sorted(store.keys()) != wanted:
        tally.faults.append(f"grid {tally.grids}: {len(store.keys() ^ set(wanted))} cells on one side only")
    for key in wanted:
        different = files_of(store, key).items() ^ files_of(reference, key).items()
        if different:
            tally.faults.append(f"grid {tally.grids}: of {key} differ {', '.join(sorted({name for name, _ in different}))}")


def main() -> None:
    """Run as a script; exits with 1 on any fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        drive(Store(options.drive), options.workers)
        return
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # the same sums in the same order
    draw, tally, begun = random.Random(options.seed), Tally(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        reference = Store(Path(folder) / "reference")
        drive(reference, options.workers)
        undisturbed = time.perf_counter() - begun
        while tally.kills < options.kills:
            ordeal(Store(Path(folder) / str(tally.grids)), reference, options, draw, tally)
        count = len(reference.keys())
    metrics = {**dataclasses.asdict(tally), "kills": tally.kills, "cells": count, "faults": len(tally.faults)}
    seconds = {"undisturbed": undisturbed, "all": time.perf_counter() - begun}
    config = {"kills": options.kills, "seed": options.seed, "workers": options.workers, "plan": dataclasses.asdict(PLAN)}
    Card(kind="grid_kill", config=config, metrics=metrics, seconds=seconds).write(ROOT / "results" / "robustness" / "grid_kill.json")
    print(*tally.faults, json.dumps(metrics | {"seconds": seconds}, indent=2), sep="\n")
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()
