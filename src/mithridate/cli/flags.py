"""Methods from the command line: a specification, plus dotted flags such as `--detector.bandwidth 0.5`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that --help stays fast
    from mithridate.roles import Role

_DOTTED = re.compile(r"--(?P<role>[a-z]+)\.(?P<field>[\w-]+)(?:=(?P<value>.*))?", re.DOTALL)
_ALIASES = {"attack": "evasion", "defense": "trainer", "method": "screen"}


def take(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command line without its dotted flags, and those, each as `--role.field=value`.

    Raises:
        BadSpec: a dotted flag without a value.
    """
    from mithridate.errors import BadSpec

    known: list[str] = []
    dotted: list[str] = []
    rest = iter(arguments)
    for item in rest:
        match = _DOTTED.fullmatch(item)
        if match is None:
            known.append(item)
            continue
        value = match["value"] if match["value"] is not None else next(rest, None)
        if value is None:
            raise BadSpec(f"{item} needs a value")
        role, field = _ALIASES.get(match["role"], match["role"]), match["field"].replace("-", "_")
        dotted.append(f"--{role}.{field}={value}")
    return known, dotted


def check(flags: Sequence[str], roles: Sequence[str]) -> None:
    """Refuse flags that belong to no role of the command.

    Raises:
        BadSpec: such a flag.
    """
    from mithridate.errors import BadSpec

    for flag in flags:
        role = flag[2:].partition(".")[0]
        if role not in roles:
            raise BadSpec(f"no such option: {flag.partition('=')[0]}; fields can be set of {', '.join(roles)}")


def method(role: Role, text: str, flags: Sequence[str], defaults: Mapping[str, Any] | None = None) -> Any:
    """The method that `text` and the flags that start with `--role.` describe.

    Args:
        role: the role it must play, which is also the prefix of its flags.
        text: its specification.
        flags: as `take` gives them.
        defaults: fields to set where the method has them and the user did not.

    Raises:
        BadSpec: an unknown name, field or value.
    """
    from mithridate import methods
    from mithridate.spec import with_flags

    full = with_flags(text, flags, role)
    chosen = methods.parse(full, role)
    known = {f.name for f in dataclasses.fields(chosen)}
    missing = {k: v for k, v in (defaults or {}).items() if k in known and f"{k}=" not in full}
    return dataclasses.replace(chosen, **missing)


def several(role: Role, texts: Sequence[str], flags: Sequence[str]) -> tuple[str, ...]:
    """Specifications of the methods that `texts` and the flags describe; a flag goes to each method that has its field.

    Raises:
        BadSpec: an unknown name, field or value, or a field that none of the methods has.
    """
    from mithridate.spec import to_spec

    plain = [method(role, text, ()) for text in texts]
    names = [{f.name for f in dataclasses.fields(each)} for each in plain]
    own = [flag for flag in flags if flag.startswith(f"--{role}.")]
    for flag in own:
        if not any(_field(flag) in fields for fields in names):
            method(role, texts[0], [flag])  # says what is wrong, and what was meant
    return tuple(
        to_spec(method(role, text, [flag for flag in own if _field(flag) in fields])) for text, fields in zip(texts, names, strict=True)
    )


def _field(flag: str) -> str:
    return flag.partition(".")[2].partition("=")[0]
