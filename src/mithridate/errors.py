"""Errors that callers may want to catch. Wrong arguments are plain `ValueError`s that name the field and the value."""

from __future__ import annotations


class MithridateError(Exception):
    """Base of every error of this package that is not a wrong argument. Its text is one clear line."""


class UnsafeFile(MithridateError):
    """A file that could run code, exhaust memory or lies about itself; it was refused without being executed."""


class BadFile(MithridateError):
    """A file that is damaged, of the wrong kind, or does not fit the model it is meant for."""


class BadSpec(MithridateError, ValueError):
    """A method or model specification that names nothing we know or sets a field that does not exist."""


class NotFinite(MithridateError, ValueError):
    """A loss or logits that are NaN or infinite: a training that diverged, or a broken model."""


class MissingData(MithridateError):
    """A data set that is not on this machine and could not be fetched; the text says what to put where."""


class MissingExtra(MithridateError):
    """An optional dependency that is not installed; the text holds the line that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'mithridate[{extra}]'")
