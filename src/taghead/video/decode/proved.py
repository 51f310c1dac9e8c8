"""The files on which decoders that number frames themselves are proved to number them rightly."""

import numpy as np
from av.video.frame import VideoFrame

from taghead.errors import VideoError
from taghead.video.conversion import Converter, Orientation
from taghead.video.survey import Survey

# decord counts HEVC wrongly where GOPs refer to each other. AV1 is right, but where decord's
# decoder for it was loaded into a process, torchcodec's crashes.
_CODECS = frozenset({"h264", "vp8", "vp9"})
_PIXELS = frozenset({"yuv420p", "yuvj420p"})


def check_proved(backend: str, survey: Survey) -> None:
    """Refuse a file that is not in the set where a backend is proved exact.

    Raises:
        VideoError: If it is not; says why.
    """
    reason = ""
    if not survey.is_sure:
        reason = survey.why_not
    elif survey.codec not in _CODECS:
        reason = f"its codec is {survey.codec}, and only {', '.join(sorted(_CODECS))} are proved"
    elif not survey.shown.all():
        reason = "it was cut without encoding it again: frames of it are not to be shown"
    elif survey.packets != len(survey.times):
        reason = f"it has {survey.packets} packets for {len(survey.times)} frames"
    elif survey.pix_fmt not in _PIXELS:
        reason = f"its pixels are {survey.pix_fmt}, and only 8-bit 4:2:0 is proved"
    elif not survey.orientation.is_upright:
        reason = "it is turned by metadata"
    elif survey.stated not in (0, len(survey.times)):
        reason = f"its container states {survey.stated} frames, and it has {len(survey.times)}"
    if reason:
        raise VideoError(
            f"{survey.path}: {backend} is not proved to be right on it ({reason}): use pyav"
        )


def check_count(backend: str, survey: Survey, counted: int) -> None:
    """Refuse a file whose frames a backend counts otherwise than its packets.

    Raises:
        VideoError: If the numbers differ.
    """
    if counted != len(survey.times):
        raise VideoError(
            f"{survey.path}: {backend} counts {counted} frames, its packets {len(survey.times)}: "
            "use pyav"
        )


def scaled(pictures: np.ndarray, height: int, width: int, upright: Orientation) -> np.ndarray:
    """Pictures `[T, H, W, 3]` at another size, as `VideoReader.read` scales."""
    if pictures.shape[1:3] == (height, width):
        return pictures
    convert = Converter(height, width, upright)
    result = np.empty((len(pictures), height, width, 3), np.uint8)
    for target, picture in zip(result, pictures, strict=True):
        target[:] = convert(VideoFrame.from_ndarray(picture, "rgb24"))
    return result
