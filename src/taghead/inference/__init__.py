"""Inference with a trained model: predictions for video files, and conversion of checkpoints.

It imports `taghead.data`, `taghead.model`, `taghead.video` and what lies below them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
