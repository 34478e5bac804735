"""What the grid itself takes, beside its cells: milliseconds a cell of the local engine, and how much longer Ray takes than it.

    python benchmarks/grid_overhead.py [--counts 300 3000 30000 100000] [--burn 20] [--cells 3]

The plans are real; the work of a cell is replaced by a stub, which gives a card at once, or burns processor time first. Bars: under
5 ms a cell and 10 s for the plan at 100,000 cells; Ray at most 5 % over the local engine for cells of 20 s of processor time. What the
engines take is what a run takes beside the seconds that its cells took in the worker, so that a busy machine slows neither more.
The result goes to results/speed/grid_overhead.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mithridate.bench import Plan, Store, cells, run, worker
from mithridate.bench.cell import Cell
from mithridate.bench.engines import Engine, open_engine
from mithridate.bench.plan import Threat
from mithridate.card import Card
from mithridate.files import write_atomic
from mithridate.roles import Progress, silent

BURN = "GRID_OVERHEAD_BURN"  # seconds of processor time of each judgment
WEIGHTS = 4 * 10**6  # bytes of a victim, which travel to the readers


def stub(cell: Cell, inputs: Mapping[str, Path], out: Path, progress: Progress = silent) -> Card:
    """A cell that trains and judges nothing."""
    burn = float(os.environ.get(BURN, "0"))
    if burn and cell.kind == "victim":
        write_atomic(out / "model.safetensors", os.urandom(WEIGHTS))
    end = time.process_time() + burn * (cell.kind == "judgment")
    while time.process_time() < end:
        sum(range(10_000))
    return Card(kind=cell.kind, config=dict(cell.config), metrics={"value": [0.5, 0.4, 0.6]}, seconds={"all": 0.0})


def install() -> None:
    """Have this process's cells done by the stub."""
    worker.perform = stub  # type: ignore[attr-defined]


install()  # workers of the local engine import this script before they begin


def plan(count: int) -> Plan:
    """A plan of about so many cells."""
    return Plan(
        title="overhead",
        datasets=("digits",),
        models=("lenet",),
        threats=tuple(Threat(method=name) for name in ("badnets", "sig", "blend", "wanet", "bpp", "ftrojan", "low_frequency", "tact")),
        defenses=tuple(f"aft:epochs={i + 1}" for i in range(min(48, max(2, count // 50)))),
        rates=(0.01, 0.02, 0.05, 0.1, 0.2),
        seeds=tuple(range(max(1, round(count / 2050)))),
        waived={"adaptive": "nothing is judged"},
    )


def overhead(count: int) -> dict[str, float]:
    """Seconds of the plan, of a run, and of one that finds all done."""
    begun = time.perf_counter()
    found = cells(plan(count))
    planned = time.perf_counter() - begun
    with tempfile.TemporaryDirectory() as folder, open_engine("local", Path(folder), workers=1) as engine:
        store = Store(Path(folder))
        run(found[:1], store, engine)  # the worker is there
        ran = _timed(found, store, engine)
        if len(store.keys()) != len(found):
            raise SystemExit(f"{len(found)} cells, but {len(store.keys())} cards")
        cached = _timed(found, store, engine)
    return {"cells": len(found), "plan_s": planned, "run_s": ran, "ms_per_cell": 1000 * ran / len(found), "cached_s": cached}


def _timed(found: Sequence[Cell], store: Store, engine: Engine) -> float:
    begun = time.perf_counter()
    run(found, store, engine)
    return time.perf_counter() - begun


def burning(engine: str, burn: float, count: int) -> dict[str, float]:
    """Seconds of long cells on one worker, what of them the cells themselves took, and of all that starts with a first one."""
    os.environ[BURN] = str(burn)
    twin, undefended, *others = cells(plan(50 * count))
    judged = [cell for cell in others if set(cell.needs.values()) == {twin.key, undefended.key}][:count]
    with tempfile.TemporaryDirectory() as folder:
        store, begun = Store(Path(folder)), time.perf_counter()
        with _ready(engine), open_engine(engine, store.folder, workers=1) as opened:
            run([twin, undefended], store, opened)
            start = time.perf_counter() - begun
            begun = time.perf_counter()
            state = run(judged, store, opened)
            wall = time.perf_counter() - begun
    cell_s = sum(receipt.seconds for receipt in state.finished)
    return {"cells": len(state.finished), "start_s": start, "wall_s": wall, "cell_s": cell_s, "overhead": wall / cell_s - 1}


@contextmanager
def _ready(engine: str) -> Iterator[None]:
    """For Ray, a cluster of one processor whose workers have the stub."""
    if engine != "ray":
        yield
        return
    import ray

    here, hook = str(Path(__file__).parent), "grid_overhead.install"
    environment = {"worker_process_setup_hook": hook, "env_vars": {"PYTHONPATH": here, BURN: os.environ[BURN]}}
    ray.init("local", num_cpus=1, include_dashboard=False, runtime_env=environment, log_to_driver=False)
    yield
    ray.shutdown()


def main() -> None:
    """Run as a script; exits with 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="*", default=[300, 3000, 30_000, 100_000])
    parser.add_argument("--burn", type=float, default=20.0)
    parser.add_argument("--cells", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "speed")
    args = parser.parse_args()
    stubs = [overhead(count) for count in args.counts]
    long = {engine: burning(engine, args.burn, args.cells) for engine in ("local", "ray")}
    metrics: dict[str, Any] = {
        "stubs": stubs,
        "long": long,
        "ray_over_local": (1 + long["ray"]["overhead"]) / (1 + long["local"]["overhead"]) - 1,
    }
    config = {"counts": args.counts, "burn": args.burn, "cells": args.cells, "weights": WEIGHTS}
    Card(kind="speed", config=config, metrics=metrics).write(args.out / "grid_overhead.json")
    print(json.dumps(metrics, indent=2))
    missed = metrics["ray_over_local"] > 0.05 or any(found["ms_per_cell"] > 5 or found["plan_s"] > 10 for found in stubs)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
