"""The graph of a space-time grid of tokens: nodes, relations, edges, and PyG data of feature maps.

Pure geometry; it imports `taghead.errors` alone.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
