"""Peak memory of fitting and asking a guard whose clean images are a million, paged in from a file.

    python benchmarks/reference_memory.py MODEL [--images 1000000]

MODEL is a file that `mithridate` opens, trained on CIFAR-10, which is needed under MITHRIDATE_DATA. The million are its 50,000
training images, shifted and mirrored at random; they take 3 GB in a temporary folder. Each part of the work runs in a process of its
own, whose largest resident set is what counts. Writes a card to results/speed/.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from mithridate import datasets, methods
from mithridate.card import Card
from mithridate.crossfit import score_all
from mithridate.data import Samples
from mithridate.datasets.memmap import open_memmap, write_memmap
from mithridate.guard import Guard
from mithridate.nn.modes import device_of
from mithridate.nn.resolve import resolve

JOBS = ("nothing", "kde", "lid", "activation_space", "guard")
GIGABYTE = 2**30
ASKED = 512


def repeated(count: int) -> Iterator[Samples]:
    """Parts of a set of so many images: those of CIFAR-10, each time shifted by up to 4 pixels and mirrored at random."""
    train, generator = datasets.load("cifar10").train, torch.Generator().manual_seed(0)
    for start in range(0, count, 10_000):
        rows = torch.randint(len(train), (min(10_000, count - start),), generator=generator)
        down, right, mirror = (int(torch.randint(n, (), generator=generator)) for n in (9, 9, 2))
        images = train.images[rows].roll((down - 4, right - 4), (2, 3))
        yield Samples(images.flip(3) if mirror else images, train.labels[rows], train.classes)


def work(job: str, model: str, folder: Path) -> dict[str, float]:
    """Do one job, and say what it took."""
    torch.set_num_threads(1)
    net, started = resolve(model).model.eval(), time.process_time()
    asked = datasets.load("cifar10").test[:ASKED]
    if job != "nothing":
        clean = open_memmap(folder)
        if job == "guard":
            detectors = [methods.parse(spec, "detector") for spec in ("kde", "lid", "activation_space")]
            Guard.fit(net, detectors, clean).answer(asked)
        else:
            score_all(methods.parse(job, "detector").fit(net, clean), asked, device_of(net))
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())  # getrusage tells of the parent, too
    peak, own = (int(status[name].split()[0]) * 1024 for name in ("VmHWM", "RssAnon"))  # the rest are pages of files, free to take
    return {"peak_bytes": peak, "own_bytes_at_the_end": own, "processor_seconds": time.process_time() - started}


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--job", nargs=2, metavar=("NAME", "FOLDER"), help="what a process of its own is told to do")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "speed")
    args = parser.parse_args()
    if args.job:
        print(json.dumps(work(args.job[0], args.model, Path(args.job[1]))))
        return
    metrics = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "million"
        write_memmap(repeated(args.images), folder)
        size = sum(file.stat().st_size for file in folder.iterdir())
        for job in JOBS:
            told = subprocess.run(
                [sys.executable, __file__, args.model, "--job", job, str(folder)], capture_output=True, text=True, check=True
            )
            metrics[job] = json.loads(told.stdout.splitlines()[-1])
            print(f"{job:18s} {metrics[job]['peak_bytes'] / GIGABYTE:.2f} GiB, {metrics[job]['processor_seconds']:.1f} s", flush=True)
    config = {"model": "wrn_16_1", "images": args.images, "bytes_on_disk": size, "asked": ASKED, "bar_bytes": 2 * GIGABYTE}
    Card(kind="speed", config=config, metrics=metrics).write(args.out / "reference_memory.json")


if __name__ == "__main__":
    main()
