"""Limits on what a video file may ask for: pixels of a frame, bytes of a clip.

A file of some kilobytes can hold frames of gigabytes.
"""

from pathlib import Path

from taghead.errors import VideoError

MAX_PIXELS = 2**30 // 12  # as of a picture in Pillow: 89 million, such as 9459 x 9459
MAX_CLIP_BYTES = 2**31


def check_limits(max_pixels: int, max_clip_bytes: int) -> None:
    """Refuses limits that are no positive integers.

    Raises:
        ValueError: If one is not.
    """
    for name, value in (("max_pixels", max_pixels), ("max_clip_bytes", max_clip_bytes)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer (got {value!r})")


def check_pixels(path: Path, height: int, width: int, max_pixels: int) -> None:
    """Refuses a video whose frames are too large.

    Raises:
        VideoError: If a frame has more pixels.
    """
    if height * width > max_pixels:
        raise VideoError(
            f"{path}: its frames of {width}x{height} have {height * width:,} pixels, more than "
            f"max_pixels = {max_pixels:,}"
        )


def check_clip(path: Path, num_frames: int, height: int, width: int, max_clip_bytes: int) -> None:
    """Refuses a clip that is too large, before it is read.

    Raises:
        VideoError: If its RGB pictures take more bytes.
    """
    num_bytes = 3 * num_frames * height * width
    if num_bytes > max_clip_bytes:
        raise VideoError(
            f"{path}: {num_frames} frames of {width}x{height} take {num_bytes:,} bytes, more than "
            f"max_clip_bytes = {max_clip_bytes:,}"
        )
