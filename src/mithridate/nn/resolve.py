"""From what a user types as MODEL to a model in eval mode: a weights file, an archive, `timm:NAME`, a hub id or the user's own code."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mithridate.errors import BadFile, BadSpec
from mithridate.files import sha256, write_atomic
from mithridate.nn.cards import check_card, parse_card, read_card
from mithridate.nn.exported import load_exported
from mithridate.nn.formats import identify
from mithridate.nn.models import MODELS, Normalize, create
from mithridate.nn.modes import predict
from mithridate.nn.sources import call_code, fetch
from mithridate.nn.timm_models import create_timm
from mithridate.nn.vault import load_into, load_state, save_weights

FILES = (".safetensors", ".pt", ".pth", ".bin", ".pt2", ".tar", ".th", ".ckpt", ".pkl", ".npy", ".npz", ".h5", ".onnx", ".zip")
_CODE = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)")
_HUB = re.compile(r"(?:hf:|hf-hub:)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True, eq=False)
class Resolved:
    """A model that is ready to be asked.

    Attributes:
        model: in eval mode on the CPU; images (n, c, h, w) in [0, 1] -> logits (n, classes).
        kind: `safetensors`, `torch`, `export`, `timm`, `hub` or `code`.
        source: what the user typed.
        architecture: its name, or the class of a module that has none.
        sha256: of the file the weights (or the code) came from.
        safe: True when no code of the giver was run; False for the user's own code, which was run on request.
        card: arch, classes, input [c, h, w], and what else the card beside the weights says.
    """

    model: nn.Module = field(repr=False)
    kind: str
    source: str
    architecture: str
    sha256: str
    safe: bool
    card: dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """What the model is asked to fit: its classes (None: as given by the weights' maker), and images (channels, size, size)."""

    classes: int | None
    channels: int
    size: int


def resolve(reference: str, *, arch: str | None = None, classes: int | None = None, channels: int = 3, size: int = 32) -> Resolved:
    """The model that a reference names.

    Args:
        reference: a weights file, a `.pt2` archive, `timm:NAME`, `timm:NAME@weights.safetensors`, `hf:org/name`, `org/name` or
            `file.py:callable`.
        arch: architecture of a weights file: one of `MODELS`, `timm:NAME` or `file.py:callable`; else its card says it.
        classes: number of classes; else the card says it.
        channels, size: of the images it will see; a card's `input` goes before them.

    Raises:
        BadSpec: an unknown architecture, or an architecture or class count that nobody states.
        BadFile: damaged, of a kind that is not supported, or it does not fit the architecture or the images.
        UnsafeFile: it could run code, exhaust memory or lies about itself.
        MissingExtra: timm or huggingface_hub is needed and not installed.
        MissingData: the hub cannot be reached.
    """
    shape = Shape(classes, channels, size)
    if reference.startswith("timm:"):
        found = _from_timm(reference, shape)
    elif (code := _CODE.fullmatch(reference)) is not None:
        found = _from_code(reference, Path(code["file"]), code["name"])
    elif reference.startswith(("hf:", "hf-hub:")) or (_HUB.fullmatch(reference) and _is_hub_id(reference)):
        found = _from_hub(reference, shape)
    elif identify(path := Path(reference)) == "export":
        model = load_exported(path)
        found = Resolved(model, "export", reference, "torch.export", sha256(path), True, read_card(path))
    else:
        found = _from_weights(path, reference, arch, shape)
    return _tried(found, shape)


def save_model(path: str | os.PathLike[str], model: nn.Module, card: Mapping[str, Any]) -> None:
    """Write `<stem>.safetensors` and, beside it, the card `<stem>.json`, so that `resolve` can read the model back.

    Args:
        path: of the weights, ending in `.safetensors`.
        model: any module.
        card: at least `arch`, `classes` and `input`; the weights' SHA-256 is added, which ties the two files together.

    Raises:
        ValueError: the path does not end in `.safetensors`, or the card lacks a key.
        OSError: the folder cannot be written to.
    """
    target = Path(path)
    for key in ("arch", "classes", "input"):
        if key not in card:
            raise ValueError(f"card must hold {key!r}, got {sorted(card)}")
    save_weights(target, model.state_dict())
    text = json.dumps({**card, "sha256": sha256(target)}, indent=2)
    write_atomic(target.with_suffix(".json"), text.encode() + b"\n")


def _from_weights(path: Path, source: str, arch: str | None, shape: Shape) -> Resolved:
    card, loaded = read_card(path), load_state(path)
    if card.get("sha256", loaded.sha256) != loaded.sha256:
        raise BadFile(f"{path}: its card is for other weights (sha256 {str(card['sha256'])[:12]}, the file has {loaded.sha256[:12]})")
    name = arch or card.get("arch")
    if not name:
        known = ", ".join(MODELS)
        raise BadSpec(f"{path}: needs an architecture: --arch NAME, or a card {path.stem}.json beside it; known: {known}, timm:NAME")
    model = _build(name, card, shape)
    load_into(_part(model, loaded.state), loaded.state, path)
    return Resolved(model, loaded.kind, source, name, loaded.sha256, not _CODE.fullmatch(name), {**card, "arch": name})


def _build(name: str, card: Mapping[str, Any], shape: Shape) -> nn.Module:
    """An untrained model of that architecture; the global random generator is left as it was."""
    if (code := _CODE.fullmatch(name)) is not None:
        return call_code(Path(code["file"]), code["name"])
    classes = shape.classes or card.get("classes")
    classes = len(classes) if isinstance(classes, list) else classes
    if classes is None:
        raise BadSpec(f"architecture {name!r} needs the number of classes, as an argument or in the card")
    channels, size = card["input"][:2] if "input" in card else (shape.channels, shape.size)
    if name.startswith("timm:"):
        return _renormalize(create_timm(name[5:], classes=classes, channels=channels, size=size)[0], card, name)
    with torch.random.fork_rng(devices=[]):
        return _renormalize(create(name, classes=classes, channels=channels, size=size), card, name)


def _renormalize(model: nn.Module, card: Mapping[str, Any], name: str) -> nn.Module:
    if "mean" not in card and "std" not in card:
        return model
    normalize = next(module for module in model.modules() if isinstance(module, Normalize))
    for key, buffer in (("mean", normalize.mean), ("std", normalize.std)):
        if key in card:
            if len(card[key]) != buffer.numel():
                raise BadFile(f"card of {name}: {key} must hold {buffer.numel()} numbers, got {card[key]}")
            buffer.copy_(torch.tensor(card[key], dtype=buffer.dtype).view_as(buffer))
    return model


def _part(model: nn.Module, state: Mapping[str, Any]) -> nn.Module:
    """Where the weights go: strangers' files know nothing of the normalizing layer in front."""
    wrapped = isinstance(model, nn.Sequential) and len(model) == 2 and isinstance(model[0], Normalize)
    return model[1] if wrapped and "0.mean" not in state else model  # type: ignore[index]


def _from_timm(reference: str, shape: Shape) -> Resolved:
    """A timm model with the given weights, or with those that its makers published."""
    name, at, file = reference[5:].partition("@")
    if at:
        model, published = create_timm(name, classes=shape.classes, channels=shape.channels, size=shape.size)
        path = Path(file)
    else:
        model, published = create_timm(name, classes=None)
        path = fetch(published.get("hf_hub_id") or f"timm/{name}", "model.safetensors")
    loaded = load_state(path)
    load_into(_part(model, loaded.state), loaded.state, path)
    card: dict[str, Any] = {"arch": f"timm:{name}"}
    if not at and published.get("fixed_input_size"):
        card["input"] = list(published["input_size"])
    return Resolved(model, "timm", reference, f"timm:{name}", loaded.sha256, True, card)


def _is_hub_id(reference: str) -> bool:
    """`org/name` that is neither a file here, nor in a folder that is, nor named like one."""
    path = Path(reference)
    return not path.exists() and not path.parent.is_dir() and path.suffix not in FILES


def _from_hub(reference: str, shape: Shape) -> Resolved:
    match = _HUB.fullmatch(reference)
    if match is None:
        raise BadSpec(f"{reference!r} is not a hub id; expected hf:org/name or hf:org/name@revision")
    repo, revision = match["repo"], match["revision"]
    config = parse_card(path := fetch(repo, "config.json", revision))
    if not isinstance(config, dict) or not ("arch" in config or "architecture" in config):
        raise BadFile(f"{reference}: its config.json names neither 'arch' nor a timm 'architecture'; load it in your own file.py:callable")
    card = {**config, "arch": config.get("arch") or f"timm:{config['architecture']}"}
    if "arch" not in config:
        card = {"arch": card["arch"], "classes": config.get("num_classes"), **_timm_card(config)}
    card = check_card(path, {key: value for key, value in card.items() if value is not None})
    loaded = load_state(weights := fetch(repo, "model.safetensors", revision))
    model = _build(card["arch"], card, Shape(None, shape.channels, shape.size))
    load_into(_part(model, loaded.state), loaded.state, weights)
    return Resolved(model, "hub", reference, card["arch"], loaded.sha256, True, card)


def _timm_card(config: Mapping[str, Any]) -> dict[str, Any]:
    published = config.get("pretrained_cfg", {})
    names = {"input_size": "input", "mean": "mean", "std": "std"}
    return {ours: published[theirs] for theirs, ours in names.items() if isinstance(published, dict) and theirs in published}


def _from_code(source: str, path: Path, name: str) -> Resolved:
    model = call_code(path, name)
    return Resolved(model, "code", source, type(model).__name__, sha256(path), False, {"arch": source})


def _tried(found: Resolved, shape: Shape) -> Resolved:
    """The model in eval mode, after it has answered one gray image; the card says what it takes and gives."""
    channels, height, width = found.card.get("input", (shape.channels, shape.size, shape.size))
    model = found.model.eval()
    try:
        logits = predict(model, torch.full((1, channels, height, width), 0.5))
    except Exception as error:  # it is a stranger's model
        reason = " ".join((str(error) or type(error).__name__).split())[:160]
        raise BadFile(f"{found.source}: does not take images of {channels}x{height}x{width}: {reason}") from error
    count = logits.shape[1]
    named = found.card.get("classes", count)
    stated = len(named) if isinstance(named, list) else named
    if count != stated or shape.classes not in (None, count):
        raise BadFile(f"{found.source}: gives {count} classes, expected {stated if count != stated else shape.classes}")
    card = {**found.card, "classes": named, "input": [channels, height, width]}
    return Resolved(model, found.kind, found.source, found.architecture, found.sha256, found.safe, card)
