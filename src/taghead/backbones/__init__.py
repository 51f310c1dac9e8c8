"""Backbones: networks from a clip to a feature map, built by name or wrapped.

It imports `taghead.graph`, `taghead.video.preprocessing` and what lies below them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
