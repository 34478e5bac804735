"""One configuration, four spellings: a method object, `"kde:bandwidth=0.5"`, a TOML table, and `--detector.bandwidth 0.5`.

Recipes that have a name are presets of their method, as in `abl@quick`; all spellings take the name, and only `brief` gives it back.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mithridate.errors import BadSpec
from mithridate.roles import REGISTRY, Entry, Role


def find(pattern: str = "*", role: Role | None = None) -> list[Entry]:
    """The registered methods whose name matches a wildcard pattern, sorted by role and name."""
    entries = [e for e in REGISTRY.values() if fnmatch.fnmatch(e.name, pattern) and role in (None, e.role)]
    return sorted(entries, key=lambda e: (get_args(Role).index(e.role), e.name))


def entry_of(method: Any) -> Entry:
    """The registry's line of a method object.

    Raises:
        KeyError: it is of no registered class.
    """
    return REGISTRY[type(method).__module__.rpartition(".")[2]]


def parse(text: str, role: Role | None = None) -> Any:
    """The method that a specification such as `kde:bandwidth=0.5,layer=fc` describes.

    Args:
        text: `name` or `name:field=value,field=value`; a value that is a list of specifications has those with commas in
            square brackets, as in `unified:detectors=lid,[kde:layer=fc,bandwidth=0.5]`. `name@preset` stands for the fields that
            the method lists under that name in its class attribute `presets`; fields given after it go before them.
        role: the role it must play, if it matters.

    Raises:
        BadSpec: an unknown name (close ones are listed), an unknown preset or field, or a value of the wrong type.
    """
    name, _, rest = text.partition(":")
    values: dict[str, str] = {}
    for part in filter(None, _split(rest)):
        key, equals, value = part.partition("=")
        if not equals:
            raise BadSpec(f"{text!r}: expected field=value, got {part!r}")
        values[key.strip()] = value.strip()
    return make(name, values, role)


def make(name: str, values: Mapping[str, Any], role: Role | None = None) -> Any:
    """The method `name`, or `name@preset`, with the given fields; strings are converted to each field's type.

    Raises:
        BadSpec: as for `parse`.
    """
    base, at, preset = name.partition("@")
    known = [e.name for e in find(role=role)]
    if base not in known:
        raise BadSpec(f"{role or 'method'} {base!r} is unknown{_hint(base, known)}")
    method = REGISTRY[base].method
    presets: Mapping[str, Mapping[str, Any]] = getattr(method, "presets", {})
    if at and preset not in presets:
        raise BadSpec(f"{base} has no preset {preset!r}{_hint(preset, list(presets)) if presets else ''}")
    return build(method, {**presets.get(preset, {}), **values}, base)


def build(cls: type[Any], values: Mapping[str, Any], name: str) -> Any:
    """An instance of any dataclass from strings or plain values; `name` is what errors call it.

    Raises:
        BadSpec: as for `parse`.
    """
    hints = get_type_hints(cls)
    fields = [f.name for f in dataclasses.fields(cls)]
    for key in values:
        if key not in fields:
            raise BadSpec(f"{name} has no field {key!r}{_hint(key, fields)}")
    given = {}
    for key, value in values.items():
        try:
            given[key] = _convert(value, hints[key])
        except (TypeError, ValueError) as error:
            raise BadSpec(f"{name}: {key}={value!r}: {error}") from error
    try:
        return cls(**given)
    except (TypeError, ValueError) as error:
        raise BadSpec(f"{name}: {error}") from error


def to_spec(method: Any) -> str:
    """The specification string that gives this method back whatever its presets are: only fields that differ from their default."""
    return _spelled(type(method).__module__.rpartition(".")[2], method, {})


def brief(text: str) -> str:
    """The shortest specification of what a registered method's describes, for people to read; it may begin with a preset's name.

    What describes none, such as a method that is gone, comes back as it is.
    """
    try:
        method = parse(text)
    except BadSpec:
        return text
    name, presets = entry_of(method).name, getattr(method, "presets", {})
    return min([to_spec(method), *(_spelled(f"{name}@{preset}", method, values) for preset, values in presets.items())], key=len)


def to_dict(method: Any) -> dict[str, Any]:
    """The method as a TOML-ready table: its name and every field that is set."""
    fields = {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items() if value is not None}
    return {"method": type(method).__module__.rpartition(".")[2], **plain}


def from_dict(table: Mapping[str, Any], role: Role | None = None) -> Any:
    """The method that a table made by `to_dict` (or written by hand in TOML) describes.

    Raises:
        BadSpec: no `method` key, or as for `parse`.
    """
    rest = dict(table)
    name = rest.pop("method", None)
    if not isinstance(name, str):
        raise BadSpec(f"a method table needs a 'method' name, got {sorted(table)}")
    return make(name, rest, role)


def with_flags(text: str, flags: Iterable[str], prefix: str) -> str:
    """Add command-line flags `--prefix.field value` (or `--prefix.field=value`) to a specification string.

    Raises:
        BadSpec: a flag without a value.
    """
    items = list(flags)
    extra: list[str] = []
    for i, item in enumerate(items):
        if not item.startswith(f"--{prefix}."):
            continue
        key, equals, value = item[len(prefix) + 3 :].partition("=")
        if not equals:
            if i + 1 >= len(items) or items[i + 1].startswith("--"):
                raise BadSpec(f"{item} needs a value")
            value = items[i + 1]
        extra.append(f"{key.replace('-', '_')}={value}")
    return text + ((":" if ":" not in text else ",") + ",".join(extra) if extra else "")


def _spelled(name: str, method: Any, base: Mapping[str, Any]) -> str:
    """The name, and the fields that differ from those of a base or else from their default."""
    values = {f.name: (getattr(method, f.name), base.get(f.name, f.default)) for f in dataclasses.fields(method)}
    changed = [f"{key}={_text(value)}" for key, (value, usual) in values.items() if value != usual]
    return name + (":" if changed else "") + ",".join(changed)


def _split(text: str) -> list[str]:
    """Split at commas that start a new `field=`; other commas belong to a tuple's value, and so does `name:field=`."""
    parts: list[str] = []
    for piece in _pieces(text):
        if not parts or ("=" in piece and not set(":[") & set(piece.partition("=")[0])):
            parts.append(piece)
        else:
            parts[-1] += f",{piece}"
    return parts


def _pieces(text: str) -> list[str]:
    """Split at the commas that stand in no square brackets."""
    pieces, depth = [""], 0
    for character in text:
        depth = max(0, depth + (character == "[") - (character == "]"))
        if character == "," and not depth:
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces


def _bare(item: str) -> str:
    """An item of a tuple without the brackets that hold its commas together."""
    item = item.strip()
    return item[1:-1] if item.startswith("[") and item.endswith("]") else item


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(known)}"


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(f"[{v}]" if isinstance(v, str) and set("=,[") & set(v) else _text(v) for v in value)
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _convert(value: Any, hint: Any) -> Any:
    """Convert a string, or a plain TOML value, to the type of a field.

    Raises:
        ValueError: the value does not fit.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None or str(value).lower() == "none":
            return None
        return _convert(value, next(a for a in args if a is not type(None)))
    if origin is tuple:
        items = map(_bare, _pieces(value)) if isinstance(value, str) else value
        return tuple(_convert(item, args[0]) for item in items if item != "")
    if origin is Literal:
        if value not in args:
            raise ValueError(f"expected one of {', '.join(map(str, args))}, got {value!r}")
        return value
    if hint is bool:
        return _to_bool(value)
    if hint in (int, float, str):
        if hint is int and isinstance(value, float) and not value.is_integer():
            raise ValueError(f"expected an int, got {value!r}")
        return hint(value)
    raise ValueError(f"fields of type {hint} cannot be set from text")


def _to_bool(value: Any) -> bool:
    if str(value).lower() in ("true", "yes", "1"):
        return True
    if str(value).lower() in ("false", "no", "0"):
        return False
    raise ValueError(f"expected true or false, got {value!r}")
