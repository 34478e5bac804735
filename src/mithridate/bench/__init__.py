"""The grid: every attack against every defense, declared in one file, done anywhere, never done twice."""

from mithridate.bench.grid import cells as cells
from mithridate.bench.plan import Plan as Plan
from mithridate.bench.plan import read as read
from mithridate.bench.run import TimeUp as TimeUp
from mithridate.bench.run import run as run
from mithridate.bench.store import Store as Store
