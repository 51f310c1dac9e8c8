"""Limits on what a video file may ask for: pixels of a frame, bytes of a clip.

A file of some kilobytes can hold frames of gigabytes.
"""

from dataclasses import dataclass, fields
from pathlib import Path

from taghead.errors import VideoError

MORE_THAN = "more than limits."
"""What stands in the message of each refusal, before the name of the limit."""


@dataclass(frozen=True)
class Limits:
    """What a video file may ask for, as the user of this machine allows it.

    Limits are an option of each command that reads videos. They are no part of what a clip is, and
    no file from others can change them: neither models nor feature caches hold them.

    Args:
        max_pixels: The most pixels of a frame; a file with larger ones is refused. The default is
            that of pictures in Pillow, 89 million, such as 9459x9459.
        max_clip_bytes: The most bytes of the frames of a clip as RGB pictures, as they are decoded
            and as they are returned; a longer or larger clip is refused before it is read.

    Raises:
        ValueError: If one is no positive integer.
    """

    max_pixels: int = 89_478_485
    max_clip_bytes: int = 2_147_483_648

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"limits.{name} must be a positive integer (got {value!r})")

    def check_frame(self, path: Path, height: int, width: int) -> None:
        """Refuses a video whose frames are too large.

        Raises:
            VideoError: If a frame has more pixels than `max_pixels`.
        """
        if height * width > self.max_pixels:
            raise VideoError(
                f"{path}: its frames of {width}x{height} have {height * width:,} pixels, "
                f"{MORE_THAN}max_pixels = {self.max_pixels:,}"
            )

    def check_clip(self, path: Path, num_frames: int, height: int, width: int) -> None:
        """Refuses a clip that is too large.

        Raises:
            VideoError: If its RGB pictures take more bytes than `max_clip_bytes`.
        """
        num_bytes = 3 * num_frames * height * width
        if num_bytes > self.max_clip_bytes:
            raise VideoError(
                f"{path}: {num_frames} frames of {width}x{height} take {num_bytes:,} bytes, "
                f"{MORE_THAN}max_clip_bytes = {self.max_clip_bytes:,}"
            )
