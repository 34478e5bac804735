"""What is made of tensors once, and again when they have changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Prepared(Generic[T]):
    """Something made of tensors when it is first needed, and again when one of them is another or was written to.

    So a scorer keeps what makes it fast beside its buffers: it is not saved, and follows them to another device.

    Args:
        make: makes it of the tensors.
    """

    def __init__(self, make: Callable[..., T]) -> None:
        self._make = make
        self._made: tuple[tuple[Tensor, ...], list[object], T] | None = None

    def __deepcopy__(self, memo: object) -> Prepared[T]:
        """One that has made nothing yet."""
        return Prepared(self._make)

    def of(self, tensors: Sequence[Tensor], *more: object) -> T:
        """What is made of these tensors, and of what else its making takes, which is always the same; each time while exporting."""
        if torch.compiler.is_compiling():
            return self._make(*tensors, *more)
        now = [_stamp(each) for each in tensors]
        if self._made is None or self._made[1] != now:
            self._made = tuple(tensors), now, self._make(*tensors, *more)  # which keeps their memory from being used again
        return self._made[2]

    @property
    def last(self) -> T | None:
        """What was made last, if anything was."""
        return None if self._made is None else self._made[2]


def _stamp(tensor: Tensor) -> object:
    version = 0 if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride(), version
