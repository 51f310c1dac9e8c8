"""Feature caches: a frozen backbone's feature maps, written once, on which heads then train.

It imports `taghead.data`, `taghead.model` and what lies below them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
