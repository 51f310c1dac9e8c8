"""From a video file to a clip tensor: frame-exact reading, sampling, transforms."""

from typing import TYPE_CHECKING

from taghead.lazy import lazy_names

if TYPE_CHECKING:
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

# processes that only read files start without torch
__getattr__ = lazy_names(
    __name__,
    {
        "Preprocessing": "taghead.video.transforms",
        "Segment": "taghead.video.segment",
        "VideoReader": "taghead.video.reader",
        "clip_indices": "taghead.video.sampling",
        "read_frames": "taghead.video.reader",
        "uniform_indices": "taghead.video.sampling",
    },
)
