"""What is prepared of tensors is made once, and again when they change."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from mithridate.analysis.prepared import Prepared


def counted() -> tuple[Prepared[Tensor], list[Tensor]]:
    made: list[Tensor] = []

    def total(first: Tensor, second: Tensor, factor: int) -> Tensor:
        made.append(factor * (first.sum() + second.sum()))
        return made[-1]

    return Prepared(total), made


def test_it_is_made_once() -> None:
    prepared, made = counted()
    first, second = torch.ones(3), torch.ones(2)
    assert prepared.last is None
    assert float(prepared.of((first, second), 2)) == 10
    assert prepared.of((first.detach(), second), 2) is made[0], "another view of the same numbers"
    assert prepared.last is made[0] and len(made) == 1


def test_it_is_made_again_when_a_tensor_is_written_to_or_replaced() -> None:
    prepared, made = counted()
    first, second = torch.ones(3), torch.ones(2)
    prepared.of((first, second), 1)
    second.add_(1)
    assert float(prepared.of((first, second), 1)) == 7
    assert float(prepared.of((first.double(), second), 1)) == 7 and len(made) == 3
    assert float(prepared.of((first.double(), second[:1]), 1)) == 5


def test_memory_that_is_used_again_is_not_taken_for_the_same() -> None:
    """A tensor of the same size gets the memory of one that is gone, unless that one is held."""
    prepared, _ = counted()
    for value in range(20):
        assert float(prepared.of((torch.full((1000,), float(value)), torch.zeros(1)), 1)) == 1000 * value


def test_a_copy_has_made_nothing() -> None:
    prepared, made = counted()
    prepared.of((torch.ones(1), torch.ones(1)), 1)
    assert copy.deepcopy(prepared).last is None and prepared.last is made[0]


def test_inference_tensors_can_be_prepared() -> None:
    prepared, _ = counted()
    with torch.inference_mode():
        first = torch.ones(2)
        assert float(prepared.of((first, first), 1)) == 4
