"""Training and evaluation with Lightning: task, optimizer, losses, exact resume, test report.

It imports `taghead.features`, `taghead.data`, `taghead.model` and what lies below them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
