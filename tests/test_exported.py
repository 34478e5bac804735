"""Archives of `torch.export` run bit for bit like the model they came from; nothing in them is evaluated or unpickled."""

from __future__ import annotations

import copy
import io
import json
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mithridate.errors import BadFile, UnsafeFile
from mithridate.nn import taps
from mithridate.nn.exported import load_exported

sys.path.insert(0, str(Path(__file__).parent))
import hostile


class Mixed(nn.Module):
    """Branches, splits, sizes read at run time, a constant, tied weights and a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding="same", groups=1), nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False)
        self.layer_norm, self.fc, self.tied = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.tied.weight = self.fc.weight
        self.register_buffer("scale", torch.tensor([1.5]))

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.depthwise(F.gelu(self.norm(self.conv(x))).relu_()).chunk(2, dim=1)
        z = torch.cat([left, right], dim=1).view(x.shape[0], 8, -1).mean(-1) * self.scale
        return self.tied(F.softmax(self.fc(self.layer_norm(z)), dim=-1))[:, :5]


@pytest.fixture(scope="module")
def archive() -> tuple[nn.Module, bytes]:
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = Mixed().eval()
        return model, hostile.exported_bytes(model, torch.rand(2, 3, 8, 8))


def edited(data: bytes, change: Callable[[dict[str, Any]], Any], tail: str = "models/model.json") -> bytes:
    def edit(name: str, content: bytes) -> bytes:
        if not name.endswith(tail):
            return content
        table = json.loads(content)
        change(table)
        return json.dumps(table).encode()

    return hostile.rezipped(data, edit)


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "model.pt2"
    path.write_bytes(data)
    return path


def test_same_logits_gradients_and_copies(tmp_path: Path, archive: tuple[nn.Module, bytes]) -> None:
    model, data = archive
    state = torch.random.get_rng_state()
    twin = load_exported(write(tmp_path, data))
    assert torch.equal(torch.random.get_rng_state(), state)
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.equal(twin(images), model(images)) and torch.equal(copy.deepcopy(twin)(images), model(images))
    ours, theirs = (torch.autograd.grad(m(images).square().sum(), images)[0] for m in (twin, model))
    assert torch.equal(ours, theirs)
    assert not twin.training and twin(images[:1]).shape == (1, 5)


def test_layers_can_be_tapped_and_weights_stay_tied(tmp_path: Path, archive: tuple[nn.Module, bytes]) -> None:
    twin = load_exported(write(tmp_path, archive[1]))
    assert taps.last_hidden(twin, torch.rand(1, 3, 8, 8)).startswith("layers.linear")
    linears = [m for m in twin.modules() if isinstance(m, nn.Linear)]
    assert len(linears) == 2 and linears[0].weight is linears[1].weight
    assert sum(isinstance(m, nn.Conv2d) for m in twin.modules()) >= 1


def call(target: str) -> Callable[[dict[str, Any]], None]:
    def change(table: dict[str, Any]) -> None:
        node = table["graph_module"]["graph"]["nodes"][1]
        node["target"] = target
        node["inputs"] = [{"name": "", "arg": {"as_string": "touch CANARY"}, "kind": 1}]

    return change


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.load",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.__class__.mro",
        "torch.ops.higher_order.cond",
        "eval",
        "_operator.attrgetter",
        "torch.ops.aten.conv2d.default.__globals__",
        "#x:y",
        "",
        "torch.ops.aten.relu",
    ],
)
def test_calls_outside_the_list_are_refused(tmp_path: Path, archive: tuple[nn.Module, bytes], target: str) -> None:
    with pytest.raises(UnsafeFile, match="not on the list"):
        load_exported(write(tmp_path, edited(archive[1], call(target))))


def test_text_in_the_archive_is_never_evaluated(tmp_path: Path, archive: tuple[nn.Module, bytes]) -> None:
    canary = tmp_path / "canary"
    code = f"__import__('os').system('touch {canary}')"

    def poison(table: dict[str, Any]) -> None:
        table["guards_code"] = [code]
        graph = table["graph_module"]["graph"]
        for meta in graph["tensor_values"].values():
            for size in meta["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code
        table["range_constraints"] = {code: {"min_val": 1, "max_val": 4}}
        table["graph_module"]["module_call_graph"] = [{"fqn": code, "signature": {"in_spec": code}}]

    twin = load_exported(write(tmp_path, edited(archive[1], poison)))
    assert twin(torch.rand(1, 3, 8, 8)).shape == (1, 5) and not canary.exists()


def members(canary: Path) -> dict[str, Callable[[str, bytes], bytes]]:
    evil = hostile.torch_bytes((hostile.Evil(canary),))
    bomb = hostile.zipped({"a/data.pkl": bytes(1 << 24)}, 8)
    return {
        "sample inputs": lambda name, data: evil if "sample_inputs" in name else data,
        "bare sample inputs": lambda name, data: b"cposix\nsystem\n." if "sample_inputs" in name else data,
        "sample inputs bomb": lambda name, data: bomb if "sample_inputs" in name else data,
    }


@pytest.mark.parametrize("kind", ["sample inputs", "bare sample inputs", "sample inputs bomb"])
def test_pickles_inside_are_refused_unread(tmp_path: Path, archive: tuple[nn.Module, bytes], kind: str) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(UnsafeFile, match="sample_inputs"):
        load_exported(write(tmp_path, hostile.rezipped(archive[1], members(canary)[kind])))
    assert not canary.exists()


def weight(**changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(table: dict[str, Any]) -> None:
        entry = table["config"]["conv.weight"]
        for key, value in changes.items():
            (entry if key in entry else entry["tensor_meta"])[key] = value

    return change


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"use_pickle": True}, UnsafeFile),
        ({"sizes": [{"as_int": 1 << 40}]}, UnsafeFile),
        ({"sizes": [{"as_int": -1}, {"as_int": -8}]}, UnsafeFile),
        ({"strides": [{"as_int": 1 << 40}] * 4}, BadFile),
        ({"storage_offset": {"as_int": 1 << 40}}, BadFile),
        ({"dtype": 99}, BadFile),
        ({"path_name": "../../models/model.json"}, BadFile),
    ],
)
def test_lying_weights_are_refused(
    tmp_path: Path, archive: tuple[nn.Module, bytes], changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        load_exported(write(tmp_path, edited(archive[1], weight(**changes), "weights_config.json")))
    assert "\n" not in str(caught.value) and "model.pt2" in str(caught.value)


def test_nan_weights_custom_objects_and_damage_are_refused(tmp_path: Path, archive: tuple[nn.Module, bytes]) -> None:
    data = archive[1]
    nan = torch.full((216,), float("nan")).numpy().tobytes()
    with pytest.raises(BadFile, match="NaN"):
        load_exported(write(tmp_path, hostile.rezipped(data, lambda n, d: nan if len(d) == len(nan) and "weight_" in n else d)))
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        contents = {name: source.read(name) for name in source.namelist()}
    root = next(iter(contents)).split("/")[0]
    path = write(tmp_path, hostile.zipped({**contents, f"{root}/data/constants/opaque_obj_0": b"x"}))
    with pytest.raises(UnsafeFile, match="opaque_obj_0"):
        load_exported(path)
    for broken in (data[:1000], hostile.rezipped(data, lambda n, d: b"[]" if n.endswith(".json") else d)):
        with pytest.raises(BadFile):
            load_exported(write(tmp_path, broken))


def test_what_is_not_a_plain_classifier_is_refused_with_the_way_out(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Dropout())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fixed = hostile.exported_bytes(model.eval(), torch.rand(2, 3, 2, 2), dynamic=False)
        training = hostile.exported_bytes(model.train(), torch.rand(2, 3, 2, 2))
    with pytest.raises(BadFile, match="batches of exactly 2.*dynamic_shapes"):
        load_exported(write(tmp_path, fixed))
    with pytest.raises(BadFile, match="training mode"):
        load_exported(write(tmp_path, training))
    path = tmp_path / "weights.pt"
    path.write_bytes(hostile.torch_bytes(hostile.STATE))
    with pytest.raises(BadFile, match=r"not a torch\.export archive"):
        load_exported(path)
