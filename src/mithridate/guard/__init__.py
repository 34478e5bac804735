"""Protect a model that answers strangers."""

from mithridate.guard.guard import Answer as Answer
from mithridate.guard.guard import Guard as Guard
