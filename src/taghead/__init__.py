"""Time-aligned graph heads for 3D video backbones.

The packages are the architecture; imports go one way, from `cli` down to `graph` and `video`.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
