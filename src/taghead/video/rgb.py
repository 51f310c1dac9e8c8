"""Conversion of a decoded frame to the RGB picture that a player shows."""

from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from taghead.errors import VideoError

# FULL_CHR_H_INT is exact for 10 bits, and leaves 8 bits their fast path, within 3/255 of exact.
_METHOD = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT
# Formats whose bands were compared with the whole picture, to the bit.
_BANDED = frozenset(
    {
        *("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "yuv440p"),
        *("yuv420p10le", "yuv422p10le", "yuv444p10le"),
        *("gray", "gray10le", "gbrp", "rgb24", "bgra"),
    }
)
BAND_BYTES = 2**23  # of the RGB picture
_ALIGNED, _AROUND = 64, 16  # rows: fields, chroma and dithering repeat within them
# swscale takes every gray frame for full range.
_LIMITED_TO_FULL = np.clip(np.rint((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Orientation:
    """How a player turns decoded frames: a transposition, then flips.

    Attributes:
        transpose: Whether rows become columns.
        flip_x: Whether the result is flipped left to right.
        flip_y: Whether it is flipped top to bottom.
    """

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def of_frame(cls, path: Path, frame: VideoFrame) -> "Orientation":
        """The orientation that a decoded frame's display matrix states; upright without one.

        Args:
            path: The video file, for the error.
            frame: A decoded frame.

        Raises:
            VideoError: If the rotation is no multiple of 90 degrees.
        """
        data: Any = frame.side_data.get("DISPLAYMATRIX")
        if data is None:
            return cls()
        # (x, y) of the decoded frame is shown at (a*x + c*y, b*x + d*y)
        a, b, _, c, d = np.frombuffer(memoryview(data), np.int32)[:5].tolist()
        if a and d and not b and not c:
            return cls(flip_x=a < 0, flip_y=d < 0)
        if b and c and not a and not d:
            return cls(transpose=True, flip_x=c < 0, flip_y=b < 0)
        if any((a, b, c, d)):
            raise VideoError(
                f"{path}: its display matrix does not rotate by a multiple of 90 degrees"
            )
        return cls()

    @property
    def is_upright(self) -> bool:
        """Whether frames are shown as they are decoded."""
        return not (self.transpose or self.flip_x or self.flip_y)

    def swap(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of decoded frames from those of shown ones, and the other way round."""
        return (width, height) if self.transpose else (height, width)

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """The picture `[H, W, 3]` as it is shown: a view."""
        if self.transpose:
            picture = picture.transpose(1, 0, 2)
        return picture[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


class RGBConverter:
    """Decoded frames to RGB arrays, with one swscale context for all frames of a video.

    Colour matrix and range are those that the frame states; unstated, they are BT.601 and
    limited range, as players take them. Interlaced frames are scaled as whole pictures: swscale
    would scale each field by itself, so that the small picture kept the comb of the two.

    Args:
        height: Height of the pictures.
        width: Width of the pictures.
        orientation: How to rotate and flip them.

    Shapes:
        - **output** `[height, width, 3]`, uint8 RGB, valid until the next call
    """

    def __init__(self, height: int, width: int, orientation: Orientation) -> None:
        self.orientation = orientation
        self.height, self.width = orientation.swap(height, width)
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        return self.orientation.apply(self._coded(frame))

    def bands(self, frame: VideoFrame) -> Generator[np.ndarray, None, None]:
        """The picture of a frame in its own size, in bands of whole rows from top to bottom.

        Each is converted when it is asked for, with some rows around it, which chroma of other
        rows is interpolated from.

        Shapes:
            - **each** `[rows, width, 3]`, uint8 RGB, valid until the next one
        """
        across = frame.width if self.orientation.transpose else frame.height
        along = frame.height if self.orientation.transpose else frame.width
        step = max(1, BAND_BYTES // (3 * along * _ALIGNED)) * _ALIGNED
        starts = range(0, across, step)
        is_odd = frame.height % 2 or frame.width % 2  # swscale converts those in another way
        if len(starts) == 1 or is_odd or frame.format.name not in _BANDED:
            yield self(frame)
            return
        for start in reversed(starts) if self.orientation.flip_y else starts:
            stop = min(start + step, across)
            first, last = max(0, start - _AROUND), min(across, stop + _AROUND)
            part = _cut(frame, first, last, self.orientation.transpose)
            picture = self._picture(part, part.height, part.width)
            del part
            inside = slice(start - first, stop - first)
            index = (slice(None), inside) if self.orientation.transpose else inside
            yield self.orientation.apply(self._levels(frame, picture[index]))

    def _coded(self, frame: VideoFrame) -> np.ndarray:
        """The picture as it is coded, before it is turned."""
        whole = frame
        if frame.interlaced_frame and (frame.height, frame.width) != (self.height, self.width):
            # colours, which are subsampled by field, are converted by field; the copy has no fields
            picture = self._picture(frame, frame.height, frame.width)
            whole = VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
        return self._levels(frame, self._picture(whole, self.height, self.width))

    @staticmethod
    def _levels(frame: VideoFrame, picture: np.ndarray) -> np.ndarray:
        if frame.format.name.startswith("gray") and frame.color_range == ColorRange.MPEG:
            return _LIMITED_TO_FULL[picture]
        return picture

    def _picture(self, frame: VideoFrame, height: int, width: int) -> np.ndarray:
        rgb = self._reformatter.reformat(
            frame, width, height, "rgb24", interpolation=_METHOD, threads=1
        )
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
        return rows[:, : 3 * width].reshape(height, width, 3)


def corner(frame: VideoFrame) -> VideoFrame:
    """A copy of a frame's corner, with all that the frame states about itself.

    A frame of which PyAV was asked for side data lives until Python looks for circles.
    """
    return _filtered(frame, crop="min(iw,8):min(ih,8):0:0", copy="")


def _cut(frame: VideoFrame, first: int, last: int, columns: bool) -> VideoFrame:
    """Rows, or columns, of a frame from `first` to `last - 1`: it shares the frame's memory."""
    size = f"{last - first}:ih:{first}:0" if columns else f"iw:{last - first}:0:{first}"
    return _filtered(frame, crop=f"{size}:exact=1")


def _filtered(frame: VideoFrame, **filters: str) -> VideoFrame:
    """A frame after FFmpeg's filters of some names and arguments."""
    graph = Graph()
    graph.threads = 1
    last = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=frame.time_base or Fraction(1),
    )
    for name, arguments in [*filters.items(), ("buffersink", "")]:
        following = graph.add(name, arguments.replace(",", "\\,"))
        last.link_to(following)
        last = following
    graph.configure()
    graph.push(frame)
    found = graph.pull()
    assert isinstance(found, VideoFrame)
    found.color_range, found.colorspace = frame.color_range, frame.colorspace
    return found
