"""Inference with a trained model: predictions for video files, and conversion of checkpoints.

It imports `taghead.training` (the check of weights), `taghead.data`, `taghead.model` and what lies
below them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
