"""Attacks: triggers, planters and evasions, and the one poisoning function."""

from mithridate.threats import evasion as evasion
from mithridate.threats import planted as planted
from mithridate.threats import triggers as triggers
