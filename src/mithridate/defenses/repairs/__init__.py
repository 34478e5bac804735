"""Repairs: one file a method, one import line each."""

from mithridate.defenses.repairs import aft as aft
