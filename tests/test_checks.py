"""Numbers and choices are refused where they should be, and in the words that users read."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import pytest

from mithridate.checks import check_number, one_of, within

NAN = math.nan


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[1, inf)", (1, 7, 1.0, 1e300), (0, -3, 0.999, math.inf, NAN)),
        ("[0, inf)", (0, 0.0, 2.5), (-1, -1e-9, math.inf, NAN)),
        ("[0, inf]", (0, 2.5, math.inf), (-1, -math.inf, NAN)),
        ("(0, inf)", (1, 1e-300), (0, 0.0, -1, math.inf, NAN)),
        ("(0, inf]", (1e-300, math.inf), (0, -0.0, NAN)),
        ("(0, 1)", (0.5, 1e-9), (0, 1, 1.5, NAN)),
        ("(0, 1]", (0.5, 1, True), (0, 0.0, 1.001, NAN)),
        ("[0, 1)", (0, 0.999, False), (1, 1.0, -0.001, NAN)),
        ("[0, 1]", (0, 1), (-1, 2, math.inf, NAN)),
        ("[2, 256]", (2, 256), (1, 257)),
        ("(-1.5, 2e1)", (-1.49, 0, 19), (-1.5, 20)),
        ("[2, 1]", (), (0, 1, 1.5, 2, 3)),
    ],
)  # fmt: skip
def test_bounds_belong_to_the_interval_as_its_brackets_say(interval: str, inside: tuple[float, ...], outside: tuple[float, ...]) -> None:
    for value in (*inside, None):
        check_number("rate", value, interval)
    for value in outside:
        with pytest.raises(ValueError, match=f"^rate must .*, got {re.escape(str(value))}$"):
            check_number("rate", value, interval)


@pytest.mark.parametrize(
    ("interval", "value", "said"),
    [
        ("[1, inf)", 0, "be at least 1, got 0"),
        ("[1, inf)", 0.5, "be at least 1 and finite, got 0.5"),
        ("[1, inf)", NAN, "be at least 1 and finite, got nan"),
        ("[0, inf]", -0.5, "be at least 0, got -0.5"),
        ("(0, inf)", math.inf, "be positive and finite, got inf"),
        ("(0, inf)", 0, "be positive, got 0"),
        ("(0, inf]", NAN, "be positive, got nan"),
        ("(5, inf)", 5, "lie in (5, inf), got 5"),
        ("[0, 1)", 1.5, "lie in [0, 1), got 1.5"),
        ("(0, 0.5]", 0.6, "lie in (0, 0.5], got 0.6"),
    ],
)  # fmt: skip
def test_the_words_fit_the_rule_and_the_number(interval: str, value: float, said: str) -> None:
    with pytest.raises(ValueError, match=f"^rate must {re.escape(said)}$"):
        check_number("rate", value, interval)


@pytest.mark.parametrize("text", ["", "1", "[1, inf", "[1,inf)", "1, inf", "{0, 1}", "[0, 1, 2]", "[low, 1)", " [0, 1]"])
@pytest.mark.parametrize("value", [0.5, None])
def test_a_text_that_is_no_interval_is_refused_whatever_the_number(text: str, value: float | None) -> None:
    with pytest.raises(ValueError, match=r"interval must look like|could not convert"):
        check_number("rate", value, text)


@dataclass(frozen=True)
class Settings:
    steps: int = 1
    restarts: int = 1
    step: float | None = None
    norm: str = "linf"
    other: str = "l2"


def test_fields_are_checked_by_name_in_their_order() -> None:
    within(Settings(), "[1, inf)", "steps", "restarts", "step")
    with pytest.raises(ValueError, match="^restarts must be at least 1, got 0$"):
        within(Settings(restarts=0, step=0.0), "[1, inf)", "steps", "restarts", "step")
    with pytest.raises(ValueError, match="^step must be positive and finite, got nan$"):
        within(Settings(step=NAN), "(0, inf)", "step")
    with pytest.raises(AttributeError, match="stpes"):
        within(Settings(), "[1, inf)", "stpes")


def test_choices_are_listed() -> None:
    one_of(Settings(), ("linf", "l2"), "norm", "other")
    with pytest.raises(ValueError, match="^norm must be 'linf' or 'l2', got 'l3'$"):
        one_of(Settings(norm="l3"), ("linf", "l2"), "norm")
    with pytest.raises(ValueError, match="^other must be 'linf', 'l1' or 'l0', got 'l2'$"):
        one_of(Settings(), ("linf", "l1", "l0"), "norm", "other")
