"""LID's neighbors and KDE's densities among 50,000 features, of ours and of scikit-learn, in one run.

    python benchmarks/reference_speed.py MODEL [--queries 256] [--rounds 5]

MODEL is a file that `mithridate` opens, trained on CIFAR-10, which is needed under MITHRIDATE_DATA: 512 features of each training image
are the reference, those of test images are the queries (`--tap`, which is pooled to them). White noise of the same shape is the hard
case for whoever leaves out what is far away. One thread; its processor time is what counts. scikit-learn's trees get fewer queries, as
they take a second for each. Writes a card to results/speed/.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import KernelDensity, NearestNeighbors
from timing import in_turn, ratios
from torch import Tensor, nn

from mithridate import datasets
from mithridate.analysis.density import Kernels, log_density
from mithridate.analysis.dimensionality import local_dimension
from mithridate.analysis.neighbors import Bank, nearest
from mithridate.card import Card
from mithridate.nn.resolve import resolve
from mithridate.nn.taps import trace_all

BATCH, FEW = 128, 4  # queries of us at once, and of a tree in all


def features(model: nn.Module, tap: str, queries: int) -> tuple[Tensor, Tensor]:
    """Bank (50,000, d) and queries of real images."""
    data = datasets.load("cifar10")
    with torch.inference_mode():
        bank, asked = (trace_all(model, each, (tap,)).activations[tap] for each in (data.train, data.test[:queries]))
    return bank.clone(), asked.clone()


def noise(like: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """White noise of the same shapes."""
    generator = torch.Generator().manual_seed(0)
    bank, asked = (torch.randn(each.shape, generator=generator) for each in like)
    return bank, asked


def seconds(jobs: dict[str, tuple[int, Callable[[], object]]], rounds: int) -> dict[str, list[float]]:
    """Processor seconds for 1,000 queries of each job, which asks so many."""
    spent: dict[str, list[float]] = {name: [] for name in jobs}

    def job(name: str) -> None:
        started = time.process_time()
        jobs[name][1]()
        spent[name].append((time.process_time() - started) * 1000 / jobs[name][0])

    in_turn({name: functools.partial(job, name) for name in jobs}, rounds)
    return {name: runs[1:] for name, runs in spent.items()}  # the first one warms up


def neighbors(bank: Tensor, asked: Tensor, k: int, rounds: int) -> dict[str, Any]:
    """Times of LID's neighbor search, and how far LID is from what it is of scikit-learn's neighbors in double precision."""
    started = time.process_time()
    prepared = Bank.of(bank)
    preparing = time.process_time() - started
    made = {
        name: NearestNeighbors(n_neighbors=k, algorithm=name.removeprefix("sklearn_"), n_jobs=1).fit(bank.numpy())
        for name in ("sklearn_auto", "sklearn_brute", "sklearn_kd_tree", "sklearn_ball_tree")
    }
    jobs: dict[str, tuple[int, Callable[[], object]]] = {
        name: (many := FEW if "tree" in name else len(asked), functools.partial(each.kneighbors, asked[:many].numpy()))
        for name, each in made.items()
    }
    jobs["ours"] = (len(asked), lambda: [nearest(part, prepared, k) for part in asked.split(BATCH)])
    spent = seconds(jobs, rounds)
    distances, rows = nearest(asked, prepared, k)
    exact = (asked[:, None].double() - bank[rows].double()).norm(dim=2)
    theirs, theirs_rows = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(bank.double().numpy()).kneighbors(asked.double().numpy())
    lid, ours = (local_dimension(torch.as_tensor(each)).double() for each in (theirs, distances))
    return {
        "processor_seconds_per_1000": spent,
        "preparing_seconds": preparing,
        "short_dimensions": int(prepared.short.shape[1]),
        "sklearn_auto_is": made["sklearn_auto"]._fit_method,
        "times_faster_than": {name: ratios(spent, "ours", name) for name in made},
        "same_neighbors": float((np.sort(rows.numpy(), 1) == np.sort(theirs_rows, 1)).mean()),
        "largest_relative_difference_of_distances": float(((distances.double() - torch.from_numpy(theirs)).abs() / distances).max()),
        "largest_relative_difference_of_lid": float(((ours - lid).abs() / lid).max()),
        "largest_relative_difference_of_lid_on_fixed_neighbors": float(((ours / closed_form(exact)) - 1).abs().max()),
        "largest_relative_difference_of_lid_on_fixed_distances": float(((ours / closed_form(distances.double())) - 1).abs().max()),
    }


def closed_form(distances: Tensor) -> Tensor:
    """LID (m,) of distances (m, k) in double precision, as the paper has it."""
    return -1 / (distances / distances[:, -1:]).log().mean(1)


def densities(bank: Tensor, asked: Tensor, rounds: int) -> dict[str, Any]:
    """Times of the log density, and how far it is from scikit-learn's."""
    width = float(nearest(asked, bank, 1)[0].median())
    theirs, kernels = KernelDensity(bandwidth=width).fit(bank.numpy()), Kernels.of(bank)
    spent = seconds(
        {
            "ours": (len(asked), lambda: [log_density(part, kernels, width) for part in asked.split(BATCH)]),
            "sklearn": (FEW, lambda: theirs.score_samples(asked[:FEW].numpy())),
        },
        rounds,
    )
    expected = torch.from_numpy(theirs.score_samples(asked[: 4 * FEW].numpy()))
    return {
        "processor_seconds_per_1000": spent,
        "bandwidth": width,
        "times_faster_than": {"sklearn": ratios(spent, "ours", "sklearn")},
        "largest_relative_difference": float(((log_density(asked[: 4 * FEW], kernels, width) - expected) / expected).abs().max()),
    }


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--tap", default="1.4@4x2", help="512 features; the default is the last norm of wrn_16_1")
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "speed")
    args = parser.parse_args()
    torch.set_num_threads(1)
    real = features(resolve(args.model).model.eval(), args.tap, args.queries)
    found: dict[str, Any] = {}
    for name, (bank, asked) in {"cifar10": real, "noise": noise(real)}.items():
        for k in (20, round(len(bank) ** 0.5)) if name == "cifar10" else (20,):
            found[f"lid_{name}_k{k}"] = neighbors(bank, asked, k, args.rounds)
        found[f"kde_{name}"] = densities(bank, asked, args.rounds)
    for name, each in found.items():
        print(name, {other: [round(x, 1) for x in ratio] for other, ratio in each["times_faster_than"].items()}, flush=True)
    config = {"model": "wrn_16_1", "reference": list(real[0].shape), "queries": args.queries, "batch": BATCH, "rounds": args.rounds}
    config |= {"tree_queries": FEW, "tap": args.tap, "threads": 1, "dtype": "float32"}
    Card(kind="speed", config=config, metrics=found).write(args.out / "reference_scoring.json")


if __name__ == "__main__":
    main()
