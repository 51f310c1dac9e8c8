"""Sweeps: many variants of a training, run in parallel and resumably, into one table of runs.

It imports `taghead.training` and what lies below it; `taghead.compare` reads the files it writes.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
