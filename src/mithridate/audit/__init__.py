"""The main job: given a model and a few clean images, say whether to trust it, and hand back a repaired one."""

from mithridate.audit.ends import Outcome as Outcome
from mithridate.audit.ends import Subject as Subject
from mithridate.audit.run import audit as audit
from mithridate.audit.settings import Settings as Settings
from mithridate.audit.writing import write as write
