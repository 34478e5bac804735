"""Inspectors: one file a method, one import line each."""

from mithridate.defenses.inspectors import adversarial_labels as adversarial_labels
