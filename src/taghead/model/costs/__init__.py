"""Costs of a model by part: parameters, floating-point operations, latency and memory.

It imports `taghead.model.classifier` and what lies below it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
