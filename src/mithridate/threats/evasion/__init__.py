"""Evasions: one file a method, one import line each."""

from mithridate.threats.evasion import pgd as pgd
