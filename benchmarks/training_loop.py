"""Images per second of our training loop, of a bare hand-written loop with the same settings, and of the field's usual pipeline.

    python benchmarks/training_loop.py [--images 12800] [--rounds 5] [--threads 1]

Needs CIFAR-10 under MITHRIDATE_DATA and torchvision (the `vision` extra) for the usual pipeline. Writes a card to results/speed/.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from timing import in_turn, ratios
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from mithridate import datasets
from mithridate.card import Card
from mithridate.data import Samples
from mithridate.defenses.trainers.plain import Plain
from mithridate.nn.models import initialize
from mithridate.nn.modes import has_fast_bf16
from mithridate.nn.timm_models import import_torchvision

BATCH = 128


def fresh() -> nn.Module:
    """The model that all three train."""
    return initialize("wrn_16_1", 0, classes=10)


def sgd(model: nn.Module) -> torch.optim.SGD:
    """The optimizer that all three use."""
    return torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)


def bare(samples: Samples) -> None:
    """The same work as ours with nothing around it: bf16, channels-last, resident uint8 images, batched crops and flips."""
    model = fresh().to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer, fast = sgd(model), has_fast_bf16(torch.device("cpu"))
    padded = F.pad(samples.images, (4, 4, 4, 4)).permute(0, 2, 3, 1).contiguous()
    for index in torch.randperm(len(samples)).split(BATCH):
        rows = torch.randint(0, 9, (len(index), 1)) + torch.arange(32)
        columns = torch.randint(0, 9, (len(index), 1)) + torch.arange(32)
        columns = torch.where(torch.rand(len(index), 1) < 0.5, columns.flip(1), columns)
        batch = padded[index[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).float() / 255
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            loss = F.cross_entropy(model(batch), samples.labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


class PerImage(Dataset[tuple[torch.Tensor, int]]):
    """One image at a time through PIL and torchvision transforms, as in nearly every released repository."""

    def __init__(self, samples: Samples) -> None:
        import_torchvision()
        from torchvision import transforms  # works on a CPU build of PyTorch only after the line above

        self.pictures = [Image.fromarray(image) for image in samples.images.permute(0, 2, 3, 1).numpy()]
        self.labels = samples.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.5,) * 3, (0.25,) * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image: torch.Tensor = self.transform(self.pictures[index])  # pyright: ignore[reportAssignmentType]
        return image, self.labels[index]


def usual(data: PerImage) -> None:
    """fp32, contiguous memory, per-image transforms in the loader."""
    model = fresh()[1].train()  # type: ignore[index]
    optimizer = sgd(model)
    for images, labels in DataLoader(data, batch_size=BATCH, shuffle=True):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12_800)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "speed")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    samples = datasets.load("cifar10").train[: args.images]
    pictures, model = PerImage(samples), fresh()
    recipe = Plain(epochs=1, flip=True)
    seconds = in_turn(
        {"ours": lambda: recipe.train(model, samples), "bare": lambda: bare(samples), "usual": lambda: usual(pictures)}, args.rounds
    )
    metrics = {
        "images_per_second": {name: [args.images / s for s in runs] for name, runs in seconds.items()},
        "ours_over_bare": ratios(seconds, "ours", "bare"),
        "ours_over_usual": ratios(seconds, "ours", "usual"),
    }
    config = {"model": "wrn_16_1", "images": args.images, "rounds": args.rounds, "threads": args.threads, "batch": BATCH}
    Card(kind="speed", config=config, metrics=metrics).write(args.out / "training_loop.json")
    for name in ("ours_over_bare", "ours_over_usual"):
        print(name, "median {:.2f}, lowest {:.2f}, highest {:.2f}".format(*metrics[name]))


if __name__ == "__main__":
    main()
