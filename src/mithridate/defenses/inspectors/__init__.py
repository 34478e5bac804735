"""Inspectors: one file a method, one import line each."""

from mithridate.defenses.inspectors import adversarial_labels as adversarial_labels
from mithridate.defenses.inspectors import neural_cleanse as neural_cleanse
