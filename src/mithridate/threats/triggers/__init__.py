"""Triggers: one file a method, one import line each."""

from mithridate.threats.triggers import badnets as badnets
from mithridate.threats.triggers import blend as blend
