"""Outlier scores against values worked by hand, and p-values that are uniform where nothing is wrong."""

from __future__ import annotations

import math

import pytest
import torch

from mithridate.analysis.outliers import below_p_value, either, low_p_value, low_scores


def test_scores_by_hand() -> None:
    """Median 3, absolute deviations 2 1 0 1 97, so MAD 1."""
    scores = low_scores(torch.tensor([1.0, 2.0, 3.0, 4.0, 100.0]))
    assert scores.tolist() == pytest.approx([v / 1.4826 for v in (2, 1, 0, -1, -97)])


def test_even_count_uses_the_middle_two() -> None:
    assert low_scores(torch.tensor([0.0, 1.0, 2.0, 9.0])).tolist() == pytest.approx([v / 1.4826 for v in (1.5, 0.5, -0.5, -7.5)])


def test_floor_calms_a_chance_cluster() -> None:
    values = torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0])
    assert float(low_scores(values).max()) > 1e6
    assert float(low_scores(values, 0.5).max()) == pytest.approx(2)


def test_p_values_are_uniform_under_the_null() -> None:
    draws = 7 + 3 * torch.randn(400, 10, generator=torch.Generator().manual_seed(1))
    p = torch.tensor([low_p_value(row) for row in draws])
    for level in (0.05, 0.2, 0.5, 0.8):
        assert float((p <= level).float().mean()) == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 400))


def test_planted_outlier_is_improbable_and_high_ones_do_not_matter() -> None:
    values = torch.randn(10, generator=torch.Generator().manual_seed(0))
    values[4] = -25
    assert low_p_value(values) < 0.01
    values[4] = 25
    assert low_p_value(values) > 0.05


def test_known_null_against_the_closed_form() -> None:
    assert below_p_value(torch.tensor([0.0]), 0, 1) == pytest.approx(0.5)
    assert below_p_value(torch.tensor([5.0, 1 - 1.6448536 * 2]), 1, 2) == pytest.approx(1 - 0.95**2)
    assert below_p_value(torch.tensor([-40.0]), 0, 1) == pytest.approx(0, abs=1e-12)
    assert below_p_value(torch.tensor([90.0]), 0, 1) == 1


def test_either_is_bonferroni() -> None:
    assert either(0.01, 0.6) == pytest.approx(0.02)
    assert either(0.7, 0.9) == 1


def test_too_few_values_leave_nothing_to_compare() -> None:
    assert low_p_value(torch.tensor([0.0, 100.0])) == 1


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(ValueError, match="^values must have shape"):
        low_scores(torch.tensor([]))
    with pytest.raises(ValueError, match="^values must be finite"):
        low_scores(torch.tensor([1.0, math.nan]))
    with pytest.raises(ValueError, match="^floor must be at least 0, got -1"):
        low_scores(torch.tensor([1.0]), -1)
    with pytest.raises(ValueError, match="^values must not be empty"):
        below_p_value(torch.tensor([]), 0, 1)
    with pytest.raises(ValueError, match="^deviation must be positive, got 0"):
        below_p_value(torch.tensor([1.0]), 0, 0)
