"""A backbone with a head: from a clip to logits, to a folder or the hub and back, and its costs.

It imports `taghead.backbones`, `taghead.nn` and the preprocessing of `taghead.video`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
