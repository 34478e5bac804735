"""What CONTRIBUTING.md says works: its detector is run as printed."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from mithridate.data import Samples
from mithridate.roles import REGISTRY
from mithridate.spec import find, parse, to_spec

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The detector of the page, in a file of its own as the page says, and forgotten afterwards."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 1
    (tmp_path / "confidence.py").write_text(blocks[0], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("confidence")
    yield
    del REGISTRY["confidence"]


@pytest.mark.usefixtures("registered")
def test_the_walk_through_gives_a_working_detector() -> None:
    assert find("confid*", role="detector")[0].summary == "Low confidence of the prediction."
    detector = parse("confidence:temperature=2")
    assert to_spec(detector) == "confidence:temperature=2.0"
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    images = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    scorer = detector.fit(model, Samples(images, torch.zeros(5, dtype=torch.int64)))
    torch.testing.assert_close(scorer(images), -(model(images) / 2).softmax(1).max(1).values)
    assert list(scorer.state_dict()) == ["temperature"]
    with pytest.raises(ValueError, match=r"temperature.*-1"):
        parse("confidence:temperature=-1")
