"""Detectors: one file a method, one import line each."""

from mithridate.defenses.detectors import kde as kde
