"""100 mutants of ours, of a loop over mutated copies, and of the paper's way: a model reload and a pass an image for each mutant.

    python benchmarks/mutation_speed.py [--models wrn_16_1 resnet9 jin_cnn] [--rounds 3]

The networks have random weights, which take the same time; the images are real, CIFAR-10 or, for jin_cnn, MNIST, under MITHRIDATE_DATA.
Copies are made and mutated beforehand, ours are drawn beforehand where they are kept. One thread, processor time. The slow ways run for
a few mutants, and the paper's for a few images, and are scaled up. Writes a card to results/speed/.
"""

from __future__ import annotations

import argparse
import copy
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from timing import in_turn, ratios
from torch import Tensor, nn

from mithridate import datasets
from mithridate.card import Card
from mithridate.defenses.detectors.mutation import Mutation, MutationScorer
from mithridate.nn.models import initialize
from mithridate.nn.mutants import mutate
from mithridate.nn.suffix import Suffix
from mithridate.nn.taps import trace

BATCH, MUTANTS, COPIES, LOADS, SINGLE = 128, 100, 8, 2, 8


def copies(model: nn.Module, scorer: MutationScorer) -> list[nn.Module]:
    """The first few mutants as models of their own."""
    made, own = [], Suffix.of(model, scorer.layers).weights()
    names = {weight.data_ptr(): name for name, weight in model.named_parameters()}
    for seed in scorer.seeds[:COPIES].tolist():
        mutant = copy.deepcopy(model)
        state = {names[own[name].data_ptr()]: weight for name, weight in mutate(scorer.kind[0], own, scorer.kind[1], seed).items()}
        mutant.load_state_dict(state, strict=False)
        made.append(mutant.eval())
    return made


def loop(mutants: list[nn.Module], images: Tensor) -> Tensor:
    """Labels of all mutants, one batch each."""
    return torch.stack([mutant(images).argmax(1) for mutant in mutants])


def paper(model: nn.Module, files: list[Path], images: Tensor) -> Tensor:
    """Labels of all mutants, each loaded from its file and shown one image after the other."""
    labels = []
    for file in files:
        model.load_state_dict(load_file(file))
        labels.append(torch.stack([model(image[None]).argmax(1) for image in images]))
    return torch.stack(labels)


def compare(name: str, rounds: int, folder: Path) -> dict[str, Any]:
    """Processor seconds for 100 mutants and a batch, of each way, and whether they give the same label changes."""
    data = datasets.load("mnist" if name == "jin_cnn" else "cifar10").test
    shape = {"classes": len(data.classes), "channels": data.images.shape[1], "size": data.images.shape[2]}
    model, images = initialize(name, 0, **shape).eval(), data.images[:BATCH].float() / 255
    scorer = Mutation(mutants=MUTANTS, level=0.5, least=2).fit(model, data[:BATCH])
    mutants, files = copies(model, scorer), [folder / f"{name}{i}.safetensors" for i in range(LOADS)]
    for mutant, file in zip(mutants, files, strict=False):
        save_file(mutant.state_dict(), file)
    jobs: dict[str, tuple[float, Callable[[], object]]] = {
        "ours": (1, lambda: scorer(images)),
        "ours_without_the_pass": (1, functools.partial(scorer.score, trace(model, images, scorer.layers))),
        "bare_pass": (1, lambda: model(images)),
        "loop": (MUTANTS / COPIES, lambda: loop(mutants, images)),
        "paper": (MUTANTS / LOADS * BATCH / SINGLE, lambda: paper(copy.deepcopy(model), files, images[:SINGLE])),
    }
    spent: dict[str, list[float]] = {job: [] for job in jobs}

    def run(job: str) -> None:
        started = time.process_time()
        with torch.no_grad():
            jobs[job][1]()
        spent[job].append((time.process_time() - started) * jobs[job][0])

    in_turn({job: functools.partial(run, job) for job in jobs}, rounds)
    spent = {job: runs[1:] for job, runs in spent.items()}  # the first one warms up
    with torch.no_grad():
        few = MutationScorer(model, scorer.layers, {**dict(scorer.named_buffers()), "seeds": scorer.seeds[:COPIES]})
        changed = (loop(mutants, images) != model(images).argmax(1)).float().mean(0)
        apart = float((few.watch(trace(model, images, scorer.layers)).rate - changed).abs().max())
    return {
        "processor_seconds": spent,
        "times_faster_than": {other: ratios(spent, "ours", other) for other in ("loop", "paper")},
        "mutated_numbers": sum(weight.numel() for weight in Suffix.of(model, scorer.layers).weights().values()),
        "largest_difference_of_rates": apart,
    }


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["wrn_16_1", "resnet9", "jin_cnn"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "speed")
    args = parser.parse_args()
    torch.set_num_threads(1)
    metrics = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models:
            metrics[name] = compare(name, args.rounds, Path(folder))
            told = ", ".join(
                f"{other} {ratio[0]:.1f}x ({ratio[1]:.1f} to {ratio[2]:.1f})" for other, ratio in metrics[name]["times_faster_than"].items()
            )
            print(f"{name:10s} {told}, rates apart by {metrics[name]['largest_difference_of_rates']:.4f}", flush=True)
    config = {
        "batch": BATCH,
        "mutants": MUTANTS,
        "copies": COPIES,
        "loads": LOADS,
        "single_images": SINGLE,
        "rounds": args.rounds,
        "threads": 1,
    }
    Card(kind="speed", config=config, metrics=metrics).write(args.out / "mutation_speed.json")


if __name__ == "__main__":
    main()
