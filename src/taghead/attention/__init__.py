"""Attention weights of edges: of one operator, of a layer and of a head; queries and rollout.

It imports `taghead.operators` and `taghead.graph`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
