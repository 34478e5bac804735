"""GTSRB: German traffic signs in 43 classes (Stallkamp et al. 2012, doi:10.1016/j.neunet.2012.02.016), resized to 32x32."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from mithridate.data import Samples
from mithridate.datasets import folder
from mithridate.datasets.download import Remote
from mithridate.datasets.listing import Listing, listed
from mithridate.datasets.published import Pair, Published
from mithridate.datasets.wanted import Wanted
from mithridate.errors import BadFile

# Where each part may lie: a folder or archive under the data root, and the folder inside of it.
_TRAIN = (
    ("gtsrb/train", ""),
    ("GTSRB/Final_Training/Images", ""),
    ("GTSRB/Training", ""),
    ("GTSRB-Training_fixed.zip", "GTSRB/Training"),
    ("GTSRB_Final_Training_Images.zip", "GTSRB/Final_Training/Images"),
)
_TEST = (("GTSRB/Final_Test/Images", ""), ("GTSRB_Final_Test_Images.zip", "GTSRB/Final_Test/Images"))
_TRUTH = (("GTSRB/Final_Test/Images", ""), ("GTSRB", ""), ("GTSRB_Final_Test_GT.zip", ""))
_CSV = "GT-final_test.csv"


def read(root: Path) -> Pair | None:
    """Training and test images (n, 3, 32, 32), uint8: whole frames, resized.

    Reads class folders (`gtsrb/train/00000/*.png`) or the published files, unpacked (`GTSRB/`) or as the archives they come in.
    Training names are `class/track_frame`, so that `tracks` can tell near-duplicates.

    Raises:
        BadFile, UnsafeFile: a damaged image, archive or list of labels.
    """
    train = _first(root, _TRAIN)
    test = _first(root, (("gtsrb/test", ""),)) or _final_test(root)
    return (train, test) if train and test else None


def tracks(samples: Samples) -> Tensor:
    """Number (n,) int64 of the track that each training image belongs to: frames of one track are near-duplicates.

    Raises:
        ValueError: names that are not `class/track_frame`.
    """
    if not samples.names or not all("_" in name for name in samples.names):
        raise ValueError("names must be class/track_frame, as in the published training files")
    keys = [name.rpartition("_")[0] for name in samples.names]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return torch.tensor([number[key] for key in keys])


def _first(root: Path, places: tuple[tuple[str, str], ...]) -> Samples | None:
    """The images in the first of the places that is there."""
    for place, inside in places:
        if (root / place).exists():
            with listed(root / place) as listing:
                return _read(listing.under(inside))
    return None


def _read(listing: Listing) -> Samples:
    found = folder.read(listing, Wanted(size=(32, 32), channels=3, classes=GTSRB.classes))
    return replace(found, names=tuple(name.rpartition(".")[0] for name in found.names))


def _final_test(root: Path) -> Samples | None:
    """The published test images, which lie in one folder, with the classes of the list beside them."""
    images, truth = _first(root, _TEST), _truth(root)
    if images is None or truth is None:
        return None
    try:
        labels = [truth[name] for name in images.names]
        names = tuple(f"{label:05d}/{name}" for label, name in zip(labels, images.names, strict=True))
        return replace(images, labels=torch.tensor(labels), names=names)
    except (KeyError, ValueError) as error:
        raise BadFile(f"{root}: {_CSV} does not fit the test images ({error})") from error


def _truth(root: Path) -> dict[str, int] | None:
    for place, inside in _TRUTH:
        if (root / place).exists():
            with listed(root / place) as listing:
                files = listing.under(inside)
                if _CSV in files.names:
                    return _classes(files.read(_CSV), f"{root / place}/{_CSV}")
    return None


def _classes(data: bytes, where: str) -> dict[str, int]:
    rows: list[Mapping[str, str]] = []
    try:
        rows.extend(csv.DictReader(io.StringIO(data.decode("utf-8-sig")), delimiter=";"))
        return {PurePosixPath(row["Filename"]).stem: int(row["ClassId"]) for row in rows}
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise BadFile(f"{where}: expected columns Filename and ClassId ({error})") from error


def _remote(name: str, md5: str) -> Remote:
    return Remote(f"https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/{name}", name, md5)


GTSRB = Published(
    "gtsrb",
    (
        *(f"speed limit {v}" for v in (20, 30, 50, 60, 70, 80)),
        "end of speed limit 80",
        *("speed limit 100", "speed limit 120", "no passing", "no passing for trucks", "right of way at crossing"),
        *("priority road", "yield", "stop", "no vehicles", "no trucks", "no entry", "danger", "curve left", "curve right"),
        *("double curve", "bumpy road", "slippery road", "road narrows", "road works", "traffic signals", "pedestrians"),
        *("children", "bicycles", "snow", "wild animals", "end of all limits", "turn right", "turn left", "ahead only"),
        *("ahead or right", "ahead or left", "keep right", "keep left", "roundabout", "end of no passing"),
        "end of no passing for trucks",
    ),
    False,
    read,
    (
        _remote("GTSRB-Training_fixed.zip", "513f3c79a4c5141765e10e952eaa2478"),
        _remote("GTSRB_Final_Test_Images.zip", "c7e4e6327067d32654124b0fe9e82185"),
        _remote("GTSRB_Final_Test_GT.zip", "fe31e9c9270bbcd7b84b7f21a9d9d9e5"),
    ),
    "GTSRB-Training_fixed.zip, GTSRB_Final_Test_Images.zip and GTSRB_Final_Test_GT.zip, or class folders in gtsrb/train and gtsrb/test",
)
