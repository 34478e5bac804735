"""How a defense of each role is judged; the defense gets clean images, the judge keeps the rest and the key."""

from mithridate.bench.judgments.case import Case as Case
from mithridate.bench.judgments.case import Finding as Finding
from mithridate.bench.judgments.detection import detection as detection
from mithridate.bench.judgments.inspection import inspection as inspection
from mithridate.bench.judgments.inspection import read_verdict as read_verdict
from mithridate.bench.judgments.models import repairing as repairing
from mithridate.bench.judgments.models import training as training
from mithridate.bench.judgments.models import undefended as undefended
from mithridate.bench.judgments.screening import screening as screening
