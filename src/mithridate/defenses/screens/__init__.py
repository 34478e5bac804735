"""Screens: one file a method, one import line each."""

from mithridate.defenses.screens import isolation as isolation
from mithridate.defenses.screens import spectral_signature as spectral_signature
