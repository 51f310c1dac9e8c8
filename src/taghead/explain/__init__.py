"""Explanations of a model's decision on a clip: saliency, explainers, curves, plots, a page.

It imports `taghead.model`, `taghead.video` and what lies below them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
