"""Time-aligned graph heads for 3D video backbones."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taghead.grid import INTRA_FRAME, TIME_ALIGNED, Grid
    from taghead.head import TAGHead
    from taghead.model import VideoClassifier

__version__ = "0.1.0"

__all__ = ["INTRA_FRAME", "TIME_ALIGNED", "Grid", "TAGHead", "VideoClassifier"]

_MODULES = {
    "INTRA_FRAME": "taghead.grid",
    "TIME_ALIGNED": "taghead.grid",
    "Grid": "taghead.grid",
    "TAGHead": "taghead.head",
    "VideoClassifier": "taghead.model",
}


def __getattr__(name: str) -> Any:
    # torch and PyG are loaded when they are needed: the command line answers at once
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
