"""From a video file to a clip tensor: frame-exact reading, sampling, transforms."""

from taghead.video.reader import VideoReader, read_frames
from taghead.video.sampling import clip_indices, uniform_indices
from taghead.video.segment import Segment
from taghead.video.transforms import Preprocessing

__all__ = [
    "Preprocessing",
    "Segment",
    "VideoReader",
    "clip_indices",
    "read_frames",
    "uniform_indices",
]
