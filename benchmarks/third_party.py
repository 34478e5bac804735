"""Audit third-party models as a user with his own `nn.Module` would, and judge the verdicts.

    python benchmarks/third_party.py MODELS_FOLDER [ID ...]

MODELS_FOLDER holds `models.json`, `architectures.py` with `load(id)`, the weights and `triggers.npz`; the images come from
MITHRIDATE_DATA. Nothing is tuned per model. Writes one card a model to results/third_party/; a model that has a card is skipped.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mithridate.audit import Settings, Subject, audit
from mithridate.card import Card
from mithridate.data import Samples
from mithridate.datasets import data_root
from mithridate.judge import Key
from mithridate.threats.poison import stamp


def architectures(folder: Path) -> Any:
    """The module that builds the models."""
    spec = importlib.util.spec_from_file_location("architectures", folder / "architectures.py")
    if spec is None or spec.loader is None:
        raise ValueError(f"folder must hold architectures.py, got {folder}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def described(folder: Path, ids: Sequence[str]) -> list[dict[str, Any]]:
    """What is known of each model, or of those that are named."""
    return [about for about in json.loads((folder / "models.json").read_text()) if not ids or about["id"] in ids]


@dataclass(frozen=True, eq=False)
class Known:
    """A trigger as `models.json` describes it."""

    about: dict[str, Any]
    arrays: dict[str, np.ndarray[Any, Any]]

    def stamp(self, images: Tensor) -> Tensor:
        """Float images (n, c, h, w) in [0, 1] -> stamped copies."""
        out = images.clone()
        if self.about["kind"] == "patch":
            (top, bottom), (left, right) = self.about["rows"], self.about["cols"]
            out[:, :, top:bottom, left:right] = torch.tensor(self.about["value"]).view(-1, 1, 1) / 255
        elif self.about["kind"] == "pixels":
            for row, column, value in self.about["pixels"]:
                out[:, :, row, column] = value / 255
        else:
            added = torch.from_numpy(self.arrays[self.about["array"]]).float()
            out = out + (added.permute(2, 0, 1) if added.shape[-1] == 3 else added)
        return out.clamp(0, 1)


def images(name: str, folder: Path) -> Samples:
    """The test images of a set; traffic signs are cropped to the sign, as their model's maker did."""
    arrays = np.load(data_root() / f"{name}.npz")
    x, y = arrays["x_test"], torch.from_numpy(arrays["y_test"])
    if name == "gtsrb":
        x = np.stack([_crop(image, box) for image, box in zip(x, _boxes(folder.parent / "gtsrb" / "labels.npz"), strict=True)])
    x = x[..., None] if x.ndim == 3 else x
    return Samples(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(), y)


def _boxes(path: Path) -> np.ndarray[Any, Any]:
    """(n, 4) left, top, right, bottom of each test sign, as shares of the image's width and height."""
    box = np.load(path)["test_box"].astype(float)  # width, height, left, top, right, bottom
    shares: np.ndarray[Any, Any] = box[:, 2:] / np.tile(box[:, :2], 2)
    return shares


def _crop(image: np.ndarray[Any, Any], box: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    side = image.shape[0]
    picture = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR, box=tuple(box * side))
    return np.asarray(picture)


def examine(about: dict[str, Any], folder: Path, module: Any, settings: Settings) -> Card:
    """The card of one model: 1,000 clean images for the auditor, 2,000 others for the judge."""
    clean, fresh, rest = images(about["dataset"], folder).split(1000, 2000, seed=settings.seed)
    key = suspect = None
    infected = about["role"] == "infected"
    if infected:
        trigger = Known(about["trigger"], dict(np.load(folder / "triggers.npz")))
        key = Key(trigger, about["target"], about["trigger"]["kind"])
        mixed = stamp(trigger, rest[100:200])
        suspect = Samples(torch.cat([rest.images[:100], mixed.images]), rest.labels[:200])
    outcome = audit(Subject(model=module.load(about["id"]), clean=clean, suspect=suspect), settings, key=key, fresh=fresh if key else None)
    report = outcome.report
    right = report.infected == infected and report.target == (about["target"] if infected else None)
    metrics = {"right": right, "role": about["role"], "true_target": about["target"] if infected else None}
    kept = {"infected", "target", "p_value", "clean_accuracy", "robust_accuracy", "flagged", "repair", "truth", "evidence"}
    said = report.model_dump(include=kept)
    if said["flagged"]:
        said["flagged"].pop("files")
    return Card(kind="audit", config={"model": about["id"], **report.config}, metrics=metrics | said, seconds=report.seconds)


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("ids", nargs="*")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "third_party")
    args = parser.parse_args()
    torch.set_num_threads(1)
    module = architectures(args.folder)
    for about in described(args.folder, args.ids):
        path = args.out / f"{about['id']}-seed{args.seed}.json"
        if path.exists():
            continue
        card = examine(about, args.folder, module, Settings(seed=args.seed))
        card.write(path)
        print(
            about["id"],
            "right" if card.metrics["right"] else "WRONG",
            card.metrics["target"],
            f"p {card.metrics['p_value']:.2g}",
            flush=True,
        )


if __name__ == "__main__":
    main()
