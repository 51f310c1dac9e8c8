from .command import sweep as sweep
from .spec import RunSpec as RunSpec
from .spec import SweepSpec as SweepSpec
from .spec import read_sweep as read_sweep
