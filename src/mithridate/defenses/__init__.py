"""Defenses by role. Nothing here may import the threats, the judge or the metrics: that is the information barrier."""

from mithridate.defenses import detectors as detectors
from mithridate.defenses import inspectors as inspectors
from mithridate.defenses import repairs as repairs
from mithridate.defenses import screens as screens
from mithridate.defenses import trainers as trainers
