"""Interactive HTML pages of explanations, with their templates, styles and scripts.

It imports `taghead.explain.clip_explanation`, `taghead.explain.selection` and what lies below them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
