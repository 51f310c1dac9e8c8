"""Readouts, from the tokens of a clip to one vector: weighted means, frames in order, PyG's own.

It imports `taghead.nn.transformer`, `taghead.operators` and `taghead.graph`; it knows no head.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
