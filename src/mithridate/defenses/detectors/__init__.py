"""Detectors: one file a method, one import line each."""

from mithridate.defenses.detectors import activation_space as activation_space
from mithridate.defenses.detectors import kde as kde
from mithridate.defenses.detectors import lid as lid
from mithridate.defenses.detectors import mahalanobis as mahalanobis
from mithridate.defenses.detectors import mutation as mutation
from mithridate.defenses.detectors import squeezing as squeezing
from mithridate.defenses.detectors import unified as unified
