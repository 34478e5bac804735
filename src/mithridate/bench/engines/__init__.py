"""Where cells are done: on this machine, on a SLURM cluster, on a Ray cluster."""

from mithridate.bench.engines.engine import ENGINES as ENGINES
from mithridate.bench.engines.engine import Engine as Engine
from mithridate.bench.engines.engine import Lost as Lost
from mithridate.bench.engines.engine import Receipt as Receipt
from mithridate.bench.engines.engine import open_engine as open_engine
