"""`torch.export` archives, read without PyTorch's loader.

That loader evaluates text from the archive (symbolic sizes, guards, names pasted into generated code) and unpickles sample
inputs. Here the graph stays data: a list of calls to tensor operations that are on a list, with raw weights beside it.
"""

from __future__ import annotations

import io
import json
import math
import operator
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mithridate.errors import BadFile, UnsafeFile
from mithridate.nn.formats import ZIP_ERRORS, check_tensors_only, identify, open_stored_zip
from mithridate.nn.graphs import ExportedModel, Ref, Step, base_name, lift, refs, with_dead
from mithridate.nn.vault import finite

_ATEN = """
    _adaptive_avg_pool2d _native_batch_norm_legit_no_training _safe_softmax _softmax _to_copy _unsafe_view abs adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_max_pool2d add addmm alias amax amin any arange argmax avg_pool2d baddbmm batch_norm bitwise_not
    bmm cat chunk clamp clamp_max clamp_min clone constant_pad_nd contiguous conv1d conv2d convolution cos detach detach_ div
    dropout einsum elu embedding eq erf exp expand expand_as fill flatten floor floor_divide full full_like ge gelu group_norm gt
    hardsigmoid hardswish hardtanh index_select instance_norm layer_norm le leaky_relu lift_fresh_copy linalg_vector_norm linear log
    log_softmax logical_and logical_not lt matmul max max_pool2d max_pool2d_with_indices maximum mean min minimum mish mm movedim
    mul narrow native_group_norm native_layer_norm ne neg norm ones ones_like pad permute pixel_shuffle pixel_unshuffle pow prelu
    reciprocal reflection_pad2d relu relu6 repeat replication_pad2d reshape roll rsqrt rsub scaled_dot_product_attention select
    sigmoid sign silu sin slice softmax softplus split split_with_sizes sqrt squeeze stack std sub sum sym_size t tanh to transpose
    tril triu type_as unbind unflatten unsqueeze upsample_bilinear2d upsample_nearest2d var var_mean view view_as where zeros
    zeros_like
"""
ALLOWED = frozenset(_ATEN.split())
"""Operations of `torch.ops.aten` that a classifier may use; none of them touches files, devices or memory by address."""

_PYTHON = "add sub mul floordiv truediv neg mod eq ne ge gt le lt and_ or_ not_"
_OPERATORS = {name: getattr(operator, name) for name in _PYTHON.split()}
_CHECKS = ("_assert", "sym_constrain_range", "_assert_tensor_metadata", "_assert_scalar")

_DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32, 8: torch.float64,
    12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip
_MEMORY = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format}


def load_exported(path: str | os.PathLike[str]) -> nn.Module:
    """The model in a `torch.export` archive (`.pt2`), in eval mode on the CPU, without evaluating or unpickling anything.

    Raises:
        BadFile: damaged, not one image classifier, exported for one batch size only, in training mode, or with an operation not supported.
        UnsafeFile: it holds a pickle, compiled code or calls outside the list of operations.
    """
    file = Path(path)
    if identify(file) != "export":
        raise BadFile(f"{file}: not a torch.export archive")
    try:
        with open_stored_zip(file) as archive:
            return _Reader(file, archive).model().eval()
    except (*ZIP_ERRORS, KeyError, IndexError, TypeError, AttributeError) as error:
        raise BadFile(f"{file}: damaged torch.export archive: {type(error).__name__}: {' '.join(str(error).split())[:160]}") from error


class _Reader:
    """Turns one archive into a model."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self.archive = path, archive
        self.members = {name.partition("/")[2]: name for name in archive.namelist()}

    def model(self) -> ExportedModel:
        self._check_pickles()
        programs = [tail for tail in self.members if tail.startswith("models/")]
        if len(programs) != 1:
            raise BadFile(f"{self.path}: must hold one model, got {len(programs)}")
        name = Path(programs[0]).stem
        raw = self._tensors("weights", name) | self._tensors("constants", name)
        module = self._json(programs[0])["graph_module"]
        graph = module["graph"]
        state, entry = self._bind(module["signature"]["input_specs"], raw)
        self._check_input(graph["tensor_values"][entry])
        outputs = [spec["user_output"]["arg"]["as_tensor"]["name"] for spec in module["signature"]["output_specs"] if "user_output" in spec]
        if len(outputs) != 1 or len(module["signature"]["output_specs"]) != 1:
            raise BadFile(f"{self.path}: must return one tensor of logits and change nothing, got {len(outputs)} outputs")
        return self._assemble(graph["nodes"], state, (entry, outputs[0]))

    def _json(self, tail: str) -> Any:
        return json.loads(self.archive.read(self.members[tail]))

    def _check_pickles(self) -> None:
        """Sample inputs are a pickle in every archive. They are never opened here, but what they would run says who made the file."""
        for tail, name in self.members.items():
            if tail.startswith("data/sample_inputs/"):
                self._check_samples(tail, self.archive.read(name))
            elif tail.rpartition("/")[2].startswith(("custom_obj", "opaque_obj")) or tail.endswith((".pt", ".pkl")):
                raise UnsafeFile(f"{self.path}: {tail[:80]!r} is a pickled object, so it was not opened; export a model of plain tensors")

    def _check_samples(self, tail: str, data: bytes) -> None:
        if not data:
            return
        if not data.startswith(b"PK"):
            raise UnsafeFile(f"{self.path}: {tail[:80]!r} is a bare pickle, so it was not opened")
        with zipfile.ZipFile(io.BytesIO(data)) as inner:
            for member in inner.infolist():
                if member.file_size > len(data):
                    raise UnsafeFile(f"{self.path}: {tail[:80]!r} claims {member.file_size} bytes in {len(data)}")
                if member.filename.endswith(".pkl"):
                    check_tensors_only(self.path, inner.read(member), tail)

    def _tensors(self, kind: str, name: str) -> dict[str, Tensor]:
        config = self._json(f"data/{kind}/{name}_{kind}_config.json")["config"]
        return {key: self._tensor(f"data/{kind}/{entry['path_name']}", key, entry) for key, entry in config.items()}

    def _tensor(self, tail: str, key: str, entry: dict[str, Any]) -> Tensor:
        if entry["use_pickle"]:
            raise UnsafeFile(f"{self.path}: weight {key[:80]!r} is a pickled object, so it was not opened; export a model of plain tensors")
        meta, data = entry["tensor_meta"], bytearray(self.archive.read(self.members[tail]))
        shape, dtype = [n["as_int"] for n in meta["sizes"]], _DTYPES[meta["dtype"]]
        if math.prod(shape) * dtype.itemsize > len(data) or any(type(n) is not int or n < 0 for n in shape):
            raise UnsafeFile(f"{self.path}: weight {key[:80]!r} of shape {str(shape)[:60]} claims more than its {len(data)} bytes")
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        strides, offset = [n["as_int"] for n in meta["strides"]], meta["storage_offset"]["as_int"]
        tensor = flat.as_strided(shape, strides, offset).clone(memory_format=torch.contiguous_format)
        if not finite(tensor):
            raise BadFile(f"{self.path}: weight {key[:80]!r} holds NaN or infinity")
        return nn.Parameter(tensor) if entry["is_param"] and tensor.is_floating_point() else tensor

    def _bind(self, specs: list[dict[str, Any]], raw: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
        """Graph names of the weights, and of the one input."""
        state: dict[str, Tensor] = {}
        entries: list[str] = []
        for spec in specs:
            ((kind, value),) = spec.items()
            if kind == "user_input":
                entries.append(value["arg"]["as_tensor"]["name"])
            else:
                state[value["arg"]["name"]] = raw[value[f"{kind}_name"]]
        if len(entries) != 1:
            raise BadFile(f"{self.path}: must take one batch of images, takes {len(entries)} inputs")
        return state, entries[0]

    def _check_input(self, meta: dict[str, Any]) -> None:
        if len(meta["sizes"]) != 4:
            raise BadFile(f"{self.path}: must take images (n, c, h, w), takes {len(meta['sizes'])} dimensions")
        if "as_int" in meta["sizes"][0]:
            raise BadFile(
                f"{self.path}: exported for batches of exactly {meta['sizes'][0]['as_int']}; "
                "export with dynamic_shapes=({0: torch.export.Dim('batch')},)"
            )

    def _assemble(self, nodes: list[dict[str, Any]], state: dict[str, Tensor], ends: tuple[str, str]) -> ExportedModel:
        layers: dict[str, nn.Module] = {}
        steps: list[Step] = []
        for number, node in enumerate(nodes):
            call = self._target(node["target"])
            if call is None:
                continue
            kwargs = {item["name"]: _decode(item["arg"]) for item in node["inputs"]}
            if kwargs.get("training") is True or kwargs.get("train") is True:
                raise BadFile(f"{self.path}: was exported in training mode; call model.eval() before torch.export.export")
            if node["target"].split(".")[3:4] and base_name(node["target"]).endswith("_") and any(r.name in state for r in refs(kwargs)):
                raise BadFile(f"{self.path}: {node['target']} changes a weight in place")
            layer, args, kwargs = lift(call, kwargs, state, node["target"])
            name = f"{base_name(node['target'])}_{number}"
            outputs, many = _outputs(node["outputs"])
            layers[name] = layer
            steps.append(Step(name, args, kwargs, outputs, many))
        used = {ref.name for step in steps for ref in (*refs(step.args), *refs(step.kwargs))}
        return ExportedModel(layers, {n: t for n, t in state.items() if n in used}, with_dead(steps, ends[1]), ends)

    def _target(self, target: str) -> Callable[..., Any] | None:
        """The operation of that name, None for a mere check; looked up only after its name was found on the list."""
        library, _, rest = target.partition("aten.")
        base, _, overload = rest.partition(".")
        if target.startswith("_operator.") and target[10:] in _OPERATORS:
            plain: Callable[..., Any] = _OPERATORS[target[10:]]
            return plain
        if base.startswith(_CHECKS) and library == "torch.ops.":
            return None
        if library != "torch.ops." or not {base, base.removesuffix("_")} & ALLOWED or not overload.isidentifier():
            raise UnsafeFile(f"{self.path}: calls {target[:80]!r}, which is not on the list of operations that a classifier may use")
        call: Callable[..., Any] = getattr(getattr(torch.ops.aten, base), overload)
        return call


def _decode(arg: dict[str, Any]) -> Any:
    """An argument as it stands in the archive -> a plain value, or a reference to a computed one."""
    ((kind, value),) = arg.items()
    if kind not in _DECODERS:
        raise ValueError(f"argument of kind {kind!r} is not supported")
    return _DECODERS[kind](value)


def _plain(value: Any) -> Any:
    return value


def _nothing(value: Any) -> None:
    return None


def _many(value: list[dict[str, Any]]) -> list[Any]:
    return [_decode(item) for item in value]


def _named(value: dict[str, Any]) -> Ref:
    return Ref(value["name"])


_DECODERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("as_int", "as_float", "as_bool", "as_string", "as_ints", "as_floats", "as_bools", "as_strings"), _plain),
    **dict.fromkeys(("as_sym_int", "as_sym_float", "as_sym_bool", "as_optional_tensor"), _decode),
    **dict.fromkeys(("as_sym_ints", "as_sym_floats", "as_sym_bools", "as_optional_tensors"), _many),
    **dict.fromkeys(("as_none", "as_layout"), _nothing),
    "as_tensor": _named,
    "as_tensors": lambda value: [_named(item) for item in value],
    "as_name": Ref,
    "as_scalar_type": _DTYPES.__getitem__,
    "as_memory_format": _MEMORY.__getitem__,
    "as_device": lambda value: torch.device("cpu"),  # stands for: where the images are
}


def _outputs(outputs: list[dict[str, Any]]) -> tuple[tuple[str, ...], bool]:
    names = [ref.name for output in outputs for ref in refs(_decode(output))]
    return tuple(names), len(outputs) > 1 or (bool(outputs) and "as_tensors" in outputs[0])
