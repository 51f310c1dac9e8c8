"""Datasets: annotations, checks, clips and their order in training, and generated clips.

It imports `taghead.video`; it never sees a model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
