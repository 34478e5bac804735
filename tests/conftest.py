"""What every test shares: one thread, no network, and the real data and models where this machine has them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)


def _folder_in(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    return Path(value)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder that holds the real data sets; the test is skipped where there is none."""
    return _folder_in("MITHRIDATE_DATA")


@pytest.fixture(scope="session")
def third_party_models() -> Path:
    """Folder that holds the third-party models; the test is skipped where there is none."""
    return _folder_in("MITHRIDATE_MODELS")


@pytest.fixture(scope="session")
def surrogate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """File of an attacker's own model of the digits."""
    from attackers import own_model

    return own_model(tmp_path_factory.mktemp("own"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs one command line in this process; gives exit status and stderr."""
    from mithridate.cli.main import main

    def once(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["mithridate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return once
