from .command import sweep as sweep
from .spec import Run as Run
from .spec import Sweep as Sweep
from .spec import read_sweep as read_sweep
