"""The video classifier, a backbone with a head: saved, loaded, described and measured.

It imports `taghead.backbones`, `taghead.nn`, `taghead.video.preprocessing` and what lies below.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
