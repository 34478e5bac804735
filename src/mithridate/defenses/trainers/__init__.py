"""Trainers: one file a method, one import line each."""

from mithridate.defenses.trainers import abl as abl
from mithridate.defenses.trainers import plain as plain
