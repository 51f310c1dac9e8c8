"""Explanations of a decision on a clip: saliency, explainers, curves, plots, an interactive page.

It imports `taghead.inference` and what lies below it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
