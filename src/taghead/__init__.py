"""Time-aligned graph heads for 3D video backbones."""

from taghead.grid import INTRA_FRAME, TIME_ALIGNED, Grid
from taghead.head import TAGHead
from taghead.model import VideoClassifier

__version__ = "0.1.0"

__all__ = ["INTRA_FRAME", "TIME_ALIGNED", "Grid", "TAGHead", "VideoClassifier"]
