"""Every spelling of MODEL gives the same thing: a model in eval mode that answers images, or one clear line."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from mithridate.errors import BadFile, BadSpec, MissingData, MithridateError, UnsafeFile
from mithridate.nn import resolve as module
from mithridate.nn.models import create, initialize
from mithridate.nn.modes import predict
from mithridate.nn.resolve import resolve, save_model

sys.path.insert(0, str(Path(__file__).parent))
import hostile

CARD = {"arch": "lenet", "classes": 4, "input": [1, 8, 8]}
IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
CODE = """
import torch
import helper_beside
class Net(torch.nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.fc = torch.nn.Linear(64, classes)
    def forward(self, x):
        return self.fc(x.flatten(1))
def make(): return Net()
def wrong(): return 3
def fails(): raise RuntimeError("two\\nlines")
def image(): return torch.nn.Identity()
"""


def small() -> nn.Module:
    return initialize("lenet", 1, classes=4, channels=1, size=8).eval()


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, nn.Module]:
    model = small()
    save_model(tmp_path / "net.safetensors", model, CARD)
    return tmp_path / "net.safetensors", model


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "helper_beside.py").write_text("x = 1\n")
    (tmp_path / "own.py").write_text(CODE)
    return tmp_path / "own.py"


def test_saved_models_come_back_bit_for_bit(saved: tuple[Path, nn.Module]) -> None:
    path, model = saved
    state = torch.random.get_rng_state()
    found = resolve(str(path))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(predict(found.model, IMAGES), predict(model, IMAGES)) and not found.model.training
    assert (found.kind, found.architecture, found.safe, found.source) == ("safetensors", "lenet", True, str(path))
    assert found.card == {**CARD, "sha256": found.sha256} and len(found.sha256) == 64


def test_class_names_toml_and_normalization_in_the_card(tmp_path: Path, saved: tuple[Path, nn.Module]) -> None:
    path, model = saved
    path.with_suffix(".json").unlink()
    names = ["cat", "dog", "owl", "eel"]
    path.with_suffix(".toml").write_text(f'arch = "lenet"\nclasses = {json.dumps(names)}\ninput = [1, 8, 8]\n')
    found = resolve(str(path), classes=4)
    assert found.card["classes"] == names and torch.equal(predict(found.model, IMAGES), predict(model, IMAGES))
    inner = {k.removeprefix("1."): v for k, v in model.state_dict().items() if k.startswith("1.")}
    (tmp_path / "bare.pt").write_bytes(hostile.torch_bytes({"state_dict": {f"module.{k}": v for k, v in inner.items()}}))
    (tmp_path / "bare.json").write_text(json.dumps({**CARD, "mean": [0.1], "std": [0.4]}))
    expected = create("lenet", classes=4, channels=1, size=8, mean=[0.1], std=[0.4]).eval()
    expected[1].load_state_dict(inner)  # type: ignore[index]
    assert torch.equal(predict(resolve(str(tmp_path / "bare.pt")).model, IMAGES), predict(expected, IMAGES))


def test_arguments_stand_in_for_a_card(tmp_path: Path, saved: tuple[Path, nn.Module]) -> None:
    path, model = saved
    path.with_suffix(".json").unlink()
    found = resolve(str(path), arch="lenet", classes=4, channels=1, size=8)
    assert torch.equal(predict(found.model, IMAGES), predict(model, IMAGES))
    assert found.card == {"arch": "lenet", "classes": 4, "input": [1, 8, 8]}
    with pytest.raises(BadSpec, match=r"--arch NAME, or a card net\.json"):
        resolve(str(path))
    with pytest.raises(BadSpec, match="number of classes"):
        resolve(str(path), arch="lenet")
    with pytest.raises(BadSpec, match="lenett"):
        resolve(str(path), arch="lenett", classes=4)
    with pytest.raises(BadFile, match=r"shape \(4.*, the model needs \(5"):
        resolve(str(path), arch="lenet", classes=5, channels=1, size=8)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        "[" * 100000,
        '{"arch": 3}',
        '{"arch": "lenet", "classes": -1}',
        '{"classes": true}',
        '{"input": [1, 8]}',
        '{"input": [1, 8, 1e9]}',
        '{"std": [0]}',
        '{"mean": "x"}',
        '{"sha256": "0"}',
        '{"arch": "lenet", "classes": 4, "input": [1, 8, 8], "mean": [1, 2]}',
        " " * (1 << 21),
    ],
)
def test_cards_that_make_no_sense(saved: tuple[Path, nn.Module], text: str) -> None:
    saved[0].with_suffix(".json").write_text(text)
    with pytest.raises(BadFile) as caught:
        resolve(str(saved[0]), channels=1, size=8)
    assert "\n" not in str(caught.value)


def test_a_card_of_other_weights_is_noticed(saved: tuple[Path, nn.Module]) -> None:
    card = saved[0].with_suffix(".json").read_text()
    save_model(saved[0], initialize("lenet", 2, classes=4, channels=1, size=8), CARD)
    saved[0].with_suffix(".json").write_text(card)
    with pytest.raises(BadFile, match="for other weights"):
        resolve(str(saved[0]))
    with pytest.raises(ValueError, match="'input'"):
        save_model(saved[0], saved[1], {"arch": "lenet", "classes": 4})


def test_own_code_runs_on_request_only(tmp_path: Path, code: Path) -> None:
    found = resolve(f"{code}:make", channels=1, size=8)
    assert (found.kind, found.architecture, found.safe) == ("code", "Net", False)
    assert found.card["classes"] == 4 and predict(found.model, IMAGES).shape == (3, 4) and str(tmp_path) not in sys.path
    for name, message in (
        ("wrong", "must return a torch.nn.Module, got int"),
        ("fails", "RuntimeError: two lines"),
        ("missing", "AttributeError"),
        ("image", "does not take images of 1x8x8"),
    ):
        with pytest.raises(BadFile, match=message) as caught:
            resolve(f"{code}:{name}", channels=1, size=8)
        assert "\n" not in str(caught.value)
    with pytest.raises(BadFile, match="does not take images of 3x32x32"):
        resolve(f"{code}:make")
    with pytest.raises(BadFile, match="gives 4 classes, expected 7"):
        resolve(f"{code}:make", classes=7, channels=1, size=8)
    with pytest.raises(BadFile, match="no such file"):
        resolve(f"{tmp_path}/gone.py:make")


def test_own_architecture_for_a_weights_file(tmp_path: Path, code: Path) -> None:
    (tmp_path / "w.pt").write_bytes(hostile.torch_bytes({"fc.weight": torch.ones(4, 64), "fc.bias": torch.zeros(4)}))
    found = resolve(str(tmp_path / "w.pt"), arch=f"{code}:make", channels=1, size=8)
    assert torch.allclose(predict(found.model, torch.ones(1, 1, 8, 8)), torch.full((1, 4), 64.0)) and not found.safe


def test_a_card_cannot_ask_for_code_to_be_run(tmp_path: Path, code: Path) -> None:
    (tmp_path / "w.pt").write_bytes(hostile.torch_bytes({"fc.weight": torch.ones(4, 64), "fc.bias": torch.zeros(4)}))
    (tmp_path / "w.json").write_text(json.dumps({**CARD, "arch": f"{code}:make"}))
    with pytest.raises(UnsafeFile, match="asks to run"):
        resolve(str(tmp_path / "w.pt"), channels=1, size=8)


def test_archives(tmp_path: Path) -> None:
    model = small()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (tmp_path / "net.pt2").write_bytes(hostile.exported_bytes(model, IMAGES[:2]))
    found = resolve(str(tmp_path / "net.pt2"), channels=1, size=8)
    assert (found.kind, found.safe, found.card["classes"]) == ("export", True, 4)
    assert torch.equal(predict(found.model, IMAGES), predict(model, IMAGES))
    with pytest.raises(BadFile, match="does not take images of 3x8x8"):
        resolve(str(tmp_path / "net.pt2"), channels=3, size=8)


def test_hostile_files_are_refused_here_too(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name, path in hostile.write_all(tmp_path, canary):
        with pytest.raises(MithridateError) as caught:
            resolve(str(path), arch="lenet", classes=4, channels=1, size=8)
        assert "\n" not in str(caught.value), name
    assert not canary.exists()


def test_timm_models_stand_behind_their_own_normalization(tmp_path: Path) -> None:
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    from mithridate.nn.timm_models import create_timm

    model, published = create_timm("resnet10t", classes=4, channels=3, size=32)
    state = dict(model[1].state_dict())  # type: ignore[index]
    (tmp_path / "w.pt").write_bytes(hostile.torch_bytes(state))
    found = resolve(f"timm:resnet10t@{tmp_path / 'w.pt'}", classes=4)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(published[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        assert torch.allclose(predict(found.model, images), model[1].eval()((images - mean) / std), atol=1e-5)  # type: ignore[index,operator]
    save_model(tmp_path / "again.safetensors", found.model, found.card)
    assert torch.equal(predict(resolve(str(tmp_path / "again.safetensors")).model, images), predict(found.model, images))
    with pytest.raises(BadSpec, match="did you mean"):
        resolve("timm:resnet81")


def test_the_hub_gives_weights_and_a_card_or_one_line(monkeypatch: pytest.MonkeyPatch, saved: tuple[Path, nn.Module]) -> None:
    path, model = saved
    files = {"config.json": path.with_suffix(".json"), "model.safetensors": path}
    monkeypatch.setattr(module, "fetch", lambda repo, name, revision=None: files[name])
    found = resolve("hf:org/name@main")
    assert found.kind == "hub" and torch.equal(predict(found.model, IMAGES), predict(model, IMAGES))
    path.with_suffix(".json").write_text('{"architectures": ["ViTForImageClassification"]}')
    with pytest.raises(BadFile, match=r"file\.py:callable"):
        resolve("org/name")
    path.with_suffix(".json").write_text('{"arch": "evil.py:run"}')
    with pytest.raises(UnsafeFile, match="asks to run"):
        resolve("org/name")


def test_without_a_network_the_hub_fails_soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(MissingData, match=r"org/name: cannot get config\.json.*no network"):
        resolve("hf:org/name")
    assert time.monotonic() - start < 10
    for text in ("hf:bad", "hf:a/b/c"):
        with pytest.raises(BadSpec, match="not a hub id"):
            resolve(text)


def test_missing_files_are_files_not_hub_ids(tmp_path: Path) -> None:
    for text in ("models/gone.pt", "gone", "./a/b", str(tmp_path)):
        with pytest.raises(BadFile):
            resolve(text)
