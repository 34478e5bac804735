"""Kill `infect` and `audit` with SIGKILL at random moments, run them again, and compare every final byte with an undisturbed run.

    python benchmarks/kill.py [--moments 10] [--seed 0]

A file under its final name must be whole at every moment: after each kill, whatever is there must have the bytes of the undisturbed
run. After the rerun nothing may be left over. The result goes to results/robustness/kill.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from safetensors import safe_open

from mithridate.card import Card

ROOT = Path(__file__).parents[1]
CHECKPOINT = ".checkpoint.safetensors"
PLAIN = ["--trainer.batch_size", "64", "--trainer.lr", "0.02", "--trainer.pad", "1", "--epochs", "25"]
INFECT = ["infect", "--target", "7", "--trigger", "badnets:size=3", *PLAIN, "--quiet"]
AUDIT = [
    "audit",
    "--clean",
    "digits:test:300",
    "--suspect",
    "digits:train:100",
    "--inspector.steps",
    "60",
    "--repair",
    "aft:epochs=4",
    "--quiet",
]


@dataclass
class Tally:
    """What the kills did, counted."""

    kills: int = 0
    too_late: int = 0
    resumed: int = 0
    faults: list[str] = field(default_factory=list)


def command(arguments: list[str], out: Path) -> list[str]:
    """The command line that writes into `out`."""
    return [str(Path(sys.executable).with_name("mithridate")), *arguments, "--out", str(out)]


def finish(arguments: list[str], out: Path) -> float:
    """Run to the end; gives the seconds it took."""
    begun = time.perf_counter()
    done = subprocess.run(command(arguments, out), capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or "Traceback" in done.stderr:
        raise SystemExit(f"{' '.join(arguments)} failed with {done.returncode}: {done.stderr[-500:]}")
    return time.perf_counter() - begun


def kill_at(arguments: list[str], out: Path, seconds: float) -> bool:
    """Start it and kill it after some seconds; whether it was still running."""
    process = subprocess.Popen(command(arguments, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def kill_in_write(arguments: list[str], out: Path, nth: int) -> bool:
    """Start it and kill it while it writes its nth file, that is, as soon as the nth temporary file is seen."""
    process = subprocess.Popen(command(arguments, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seen: set[str] = set()
    while process.poll() is None:
        seen |= {name for name in (os.listdir(out) if out.is_dir() else ()) if name.endswith(".part")}  # noqa: PTH208 - it must be fast
        if len(seen) >= nth:
            process.kill()
            process.wait()
            return True
    return False


def content(path: Path) -> bytes:
    """The bytes of a file without what a clock wrote."""
    if path.name not in ("report.json", "card.json"):
        return path.read_bytes()
    told = json.loads(path.read_text("utf-8"))
    told.pop("seconds")
    return json.dumps(told).encode()


def compare(out: Path, reference: Path, tally: Tally, when: str) -> None:
    """Every file under its final name must be whole and equal to the undisturbed run's; report.html shows seconds, so only its end."""
    for path in sorted(out.iterdir() if out.is_dir() else ()):
        if path.name == CHECKPOINT:
            with safe_open(path, framework="pt") as stored:  # raises where it is not whole
                tally.resumed += bool(stored.metadata())
        elif path.name == "report.html":
            if not path.read_text("utf-8").rstrip().endswith("</html>"):
                tally.faults.append(f"{when}: {path.name} is cut")
        elif not path.name.startswith(".") and content(path) != content(reference / path.name):
            tally.faults.append(f"{when}: {path.name} differs")


def ordeal(name: str, arguments: list[str], work: Path, moments: int, draw: random.Random) -> tuple[Tally, dict[str, float]]:
    """Kill and rerun one command at every moment."""
    reference, out, tally = work / f"{name}-reference", work / name, Tally()
    seconds = finish(arguments, reference)
    names = sorted(path.name for path in reference.iterdir())
    moments_s = sorted(draw.uniform(0.05, 0.98) * seconds for _ in range(moments))
    plans = [partial(kill_at, arguments, out, moment) for moment in moments_s]
    plans += [partial(kill_in_write, arguments, out, nth) for nth in (1, 3)]
    for i, kill in enumerate(plans):
        shutil.rmtree(out, ignore_errors=True)
        for _ in range(9):
            if kill():
                break
            tally.too_late += 1  # it had ended before: the machine's speed varies
            shutil.rmtree(out)
            moments_s[i % moments] *= 0.8
        else:
            raise SystemExit(f"{name} always ended before it could be killed")
        tally.kills += 1
        when = f"{name}, killed after {moments_s[i]:.2f} s" if i < moments else f"{name}, killed in a write"
        compare(out, reference, tally, when)
        left = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
        finish(arguments, out)
        compare(out, reference, tally, f"{when} and run again")
        if sorted(path.name for path in out.iterdir()) != names:
            tally.faults.append(f"{when} and run again: {sorted(path.name for path in out.iterdir())} instead of {names}")
        print(f"{when}: found {', '.join(left) or 'nothing'}; faults so far: {len(tally.faults)}", flush=True)
    return tally, {name: round(seconds, 2)}


def main() -> None:
    """Kill both commands, print a summary, write the card; exits with 1 on any fault."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--moments", type=int, default=10)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # the same sums in the same order
    draw, seconds, metrics, faults = random.Random(chosen.seed), dict[str, float](), dict[str, int](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        victim = work / "infect-reference" / "model.safetensors"
        for name, arguments in (("infect", INFECT), ("audit", [AUDIT[0], str(victim), *AUDIT[1:]])):
            tally, took = ordeal(name, arguments, work, chosen.moments, draw)
            seconds |= took
            faults += tally.faults
            counted = {"kills": tally.kills, "too_late": tally.too_late, "resumed": tally.resumed, "faults": len(tally.faults)}
            metrics |= {f"{name}_{what}": count for what, count in counted.items()}
    print(*faults, *(f"{what}: {count}" for what, count in metrics.items()), sep="\n")
    config = {"moments": chosen.moments, "seed": chosen.seed, "infect": INFECT, "audit": AUDIT}
    Card(kind="kill", config=config, metrics=metrics, seconds=seconds).write(ROOT / "results" / "robustness" / "kill.json")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
