"""Time-aligned graph heads for 3D video backbones."""

from typing import TYPE_CHECKING

from taghead.lazy import lazy_names

if TYPE_CHECKING:
    from taghead.grid import FUTURE, INTRA_FRAME, PAST, TIME_ALIGNED, Grid
    from taghead.head import TAGHead
    from taghead.model import VideoClassifier

__version__ = "0.1.0"

__all__ = [
    "FUTURE",
    "INTRA_FRAME",
    "PAST",
    "TIME_ALIGNED",
    "Grid",
    "TAGHead",
    "VideoClassifier",
]

__getattr__ = lazy_names(
    __name__,
    {
        "FUTURE": "taghead.grid",
        "INTRA_FRAME": "taghead.grid",
        "PAST": "taghead.grid",
        "TIME_ALIGNED": "taghead.grid",
        "Grid": "taghead.grid",
        "TAGHead": "taghead.head",
        "VideoClassifier": "taghead.model",
    },
)
