"""The modules of a head, from tokens to logits, in the structure of the paper's figure.

It imports `taghead.attention`, `taghead.operators` and `taghead.graph`; it never sees a video.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
