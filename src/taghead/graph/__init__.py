"""The graph of a space-time grid of tokens: nodes, relations, edges, and PyG data of feature maps.

Geometry, and the rules and features of edges that are learned; it imports `taghead.components` and
what stands below it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
