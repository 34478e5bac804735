"""Methods from the command line: a specification, plus dotted flags such as `--detector.bandwidth 0.5`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mithridate import methods
from mithridate.errors import BadSpec
from mithridate.roles import Role
from mithridate.spec import with_flags


def method(role: Role, text: str, flags: Sequence[str], defaults: Mapping[str, Any] | None = None) -> Any:
    """The method that `text` and the flags that start with `--role.` describe.

    Args:
        role: the role it must play, which is also the prefix of its flags.
        text: its specification.
        flags: what is left of the command line.
        defaults: fields to set where the method has them and the user did not.

    Raises:
        BadSpec: an unknown name, field or value, or a flag that belongs to nothing.
    """
    for flag in flags:
        if flag.startswith("--") and "." not in flag:
            raise BadSpec(f"no such option: {flag}")
    full = with_flags(text, flags, role)
    chosen = methods.parse(full, role)
    known = {f.name for f in dataclasses.fields(chosen)}
    missing = {k: v for k, v in (defaults or {}).items() if k in known and f"{k}=" not in full}
    return dataclasses.replace(chosen, **missing)
