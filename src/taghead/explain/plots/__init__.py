"""Matplotlib figures of attention on video frames, and the picture files of an explanation.

Only `clip_figures` imports `taghead.explain.clip_explanation`; the others take arrays and tables.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
