"""From a video file to a clip tensor: frame-exact reading, sampling, preprocessing.

It imports `taghead.errors` alone; processes that only read files start without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
