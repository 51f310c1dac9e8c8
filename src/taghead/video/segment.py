"""Segment of a video: an action in a long recording."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from taghead.errors import VideoError

if TYPE_CHECKING:
    from taghead.video.reader import VideoReader

MAX = 1e15  # seconds or frames
SLACK_SEC = 1.0  # annotated ends are often rounded up to whole seconds


@dataclass(frozen=True)
class Segment:
    """A part of a video from a start to an end, which is not included, in seconds or in frames.

    Args:
        start: Seconds, or number of the first frame.
        end: Seconds, or number of the frame behind the last; None is the end of the file.
        unit: `sec` or `frame`.

    Raises:
        ValueError: If `start` is negative, `end` is not greater, or a frame number is no integer.
    """

    start: float
    end: float | None = None
    unit: Literal["sec", "frame"] = "sec"

    def __post_init__(self) -> None:
        if self.unit not in ("sec", "frame"):
            raise ValueError(f"unit must be sec or frame (got {self.unit!r})")
        numbers = [self.start] if self.end is None else [self.start, self.end]
        if any(type(number) not in (int, float) or MAX < number < math.inf for number in numbers):
            raise ValueError(f"start and end must be numbers up to {MAX:g} (got {self})"[:300])
        if self.unit == "frame" and any(number % 1 for number in numbers):
            raise ValueError(f"start and end must be whole frames (got {self})")
        if not (math.isfinite(self.start) and self.start >= 0):
            raise ValueError(f"start must be 0 or more (got {self.start})")
        if self.end is not None and not (math.isfinite(self.end) and self.end > self.start):
            raise ValueError(f"end must be greater than start = {self.start} (got {self.end})")

    def __str__(self) -> str:
        return f"{self.start}..{'' if self.end is None else self.end} {self.unit}"

    def frames(self, reader: VideoReader) -> range:
        """The numbers of its frames in a file.

        A frame belongs to a segment in seconds if its display begins there
        (:meth:`VideoReader.frames_between`).

        Raises:
            VideoError: If it has no frame, or ends behind the end of the file: by more than a
                second if its unit is `sec`, by any if it is `frame`.
        """
        if self.unit == "sec":
            if self.end is not None and self.end > reader.duration + SLACK_SEC:
                raise self._past_the_end(reader)
            return reader.frames_between(self.start, self.end)
        end = len(reader) if self.end is None else int(self.end)
        if self.start >= len(reader) or end > len(reader):
            raise self._past_the_end(reader)
        return range(int(self.start), end)

    def _past_the_end(self, reader: VideoReader) -> VideoError:
        length = f"{len(reader)} frames, {reader.duration:.3f} s"
        return VideoError(f"{reader.path}: segment {self} is past the end (it has {length})")
