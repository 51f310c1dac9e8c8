"""Feature caches: a frozen backbone's feature maps, written once and trained on many times.

It imports `taghead.data`, `taghead.model` and what lies below them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
