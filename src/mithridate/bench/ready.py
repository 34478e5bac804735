"""What can be said before hours of work: whether every data set can be read and is large enough for the protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mithridate.bench.cell import Cell
from mithridate.bench.protocol import Protocol
from mithridate.bench.victims import dataset_of
from mithridate.data import Samples
from mithridate.datasets import DATASETS
from mithridate.datasets.root import data_root
from mithridate.errors import BadSpec


def check(cells: Sequence[Cell]) -> None:
    """Refuse a grid whose judgments would all fail. What is not on this machine is believed, and nothing is downloaded.

    Raises:
        BadSpec: a test set too small for the protocol.
        ValueError: images that cannot be read, such as a folder of differing sizes.
    """
    asked = {(cell.config["dataset"], json.dumps(cell.config["protocol"])): cell.config for cell in cells if cell.kind == "judgment"}
    for config in asked.values():
        test = _test_images(config)
        if test is None:
            continue
        try:
            Protocol(**config["protocol"]).split(test, config["seed"])
        except ValueError as error:
            raise BadSpec(f"protocol: {error} in {config['dataset']}; [protocol] can ask for less") from error


def _test_images(config: Mapping[str, Any]) -> Samples | None:
    name = config["dataset"]
    if name in DATASETS:
        found = DATASETS[name].read(data_root())
        return None if found is None else found[1]
    return dataset_of(config).test if Path(name).exists() else None
