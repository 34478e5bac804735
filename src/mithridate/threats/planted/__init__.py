"""Attackers who control training: one file a method, one import line each."""

from mithridate.threats.planted import input_aware as input_aware
from mithridate.threats.planted import lira as lira
from mithridate.threats.planted import wanet_noise as wanet_noise
