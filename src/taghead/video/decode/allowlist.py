"""Allowlist: files on which decord and torchcodec number frames correctly.

The lists hold what was compared with PyAV frame by frame on files of every kind; nothing that a
decoder says of itself tells where it numbers frames wrongly.
"""

from collections.abc import Iterator

import numpy as np
from av.video.frame import VideoFrame

from taghead.errors import VideoError
from taghead.video.survey import Survey

# decord counts HEVC wrongly where GOPs refer to each other. AV1 is right, but where decord's
# decoder for it was loaded into a process, torchcodec's crashes.
_CODECS = frozenset({"h264", "vp8", "vp9"})
_PIXELS = frozenset({"yuv420p", "yuvj420p"})
_LARGEST_OF_DECORD = 4096 * 4096  # pixels; it was seen to hold up to 18 RGB pictures
BATCH_BYTES = 2**26  # of RGB pictures, which these backends give whole


def check_allowed(backend: str, survey: Survey) -> None:
    """Refuses a file outside the set on which a backend is proved to be exact.

    Raises:
        VideoError: If it is not; says why.
    """
    reason, num_frames = "", len(survey.timestamps)
    if not survey.is_exact:
        reason = survey.inexact_reason
    elif survey.codec not in _CODECS:
        reason = f"its codec is {survey.codec}, and only {', '.join(sorted(_CODECS))} are proved"
    elif survey.has_open_gops:
        reason = "its GOPs are open: pictures before a keyframe may refer past it"
    elif not survey.shown.all():
        reason = "it was cut without encoding it again: frames of it are not to be shown"
    elif survey.num_packets != num_frames:
        reason = f"it has {survey.num_packets} packets for {num_frames} frames"
    elif survey.pix_fmt not in _PIXELS:
        reason = f"its pixels are {survey.pix_fmt}, and only 8-bit 4:2:0 is proved"
    elif not survey.orientation.is_upright:
        reason = "it is turned by metadata"
    elif backend == "decord" and survey.height * survey.width > _LARGEST_OF_DECORD:
        reason = f"its frames are {survey.width}x{survey.height}, and decord holds many at a time"
    elif survey.container_frames not in (0, num_frames):
        reason = f"its container states {survey.container_frames} frames, and it has {num_frames}"
    if reason:
        raise VideoError(
            f"{survey.path}: {backend} is not proved to be right on it ({reason}): use pyav"
        )


def check_count(backend: str, survey: Survey, counted: int) -> None:
    """Refuses a file in which a backend counts other than one frame a packet.

    Raises:
        VideoError: If the numbers differ.
    """
    num_packets = len(survey.timestamps)
    if counted != num_packets:
        raise VideoError(
            f"{survey.path}: {backend} counts {counted} frames, its packets {num_packets}: use pyav"
        )


def batches(survey: Survey, numbers: np.ndarray) -> Iterator[list[int]]:
    """Frame numbers, as many at a time as some RGB pictures fit into memory."""
    size = max(1, BATCH_BYTES // (3 * survey.height * survey.width))
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size].tolist()


def as_frames(pictures: np.ndarray) -> Iterator[VideoFrame]:
    """Decoded frames of RGB pictures `[T, H, W, 3]`."""
    for picture in pictures:
        yield VideoFrame.from_ndarray(picture, "rgb24")
