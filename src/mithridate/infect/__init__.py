"""Make a victim for research: plant a backdoor, judge it, and keep what the attacker did apart from what a defender gets."""

from mithridate.infect.cards import ALIVE_ASR as ALIVE_ASR
from mithridate.infect.cards import ALIVE_COST as ALIVE_COST
from mithridate.infect.cards import config as config
from mithridate.infect.files import read_key as read_key
from mithridate.infect.files import write as write
from mithridate.infect.files import write_data as write_data
from mithridate.infect.make import contaminate as contaminate
from mithridate.infect.make import make as make
from mithridate.infect.plan import Plan as Plan
from mithridate.infect.plan import Poisoned as Poisoned
from mithridate.infect.plan import Victim as Victim
from mithridate.infect.words import summary as summary
