"""Every method there is: importing this module fills the registry."""

from __future__ import annotations

import dataclasses

from mithridate import defenses as defenses
from mithridate import threats as threats
from mithridate.roles import Entry
from mithridate.spec import brief as brief
from mithridate.spec import find as find
from mithridate.spec import from_dict as from_dict
from mithridate.spec import parse as parse


def fields(entry: Entry) -> dict[str, object]:
    """Field name -> default of a method, as JSON can hold it."""
    return {f.name: f.default for f in dataclasses.fields(entry.method) if f.default is not dataclasses.MISSING}
