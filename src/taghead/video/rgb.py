"""Conversion of a decoded frame to the RGB picture that a player shows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from taghead.errors import VideoError

# FULL_CHR_H_INT is exact for 10 bits, and leaves 8 bits their fast path, within 3/255 of exact.
_METHOD = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT
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
        whole = frame
        if frame.interlaced_frame and (frame.height, frame.width) != (self.height, self.width):
            # colours, which are subsampled by field, are converted by field; the copy has no fields
            picture = self._picture(frame, frame.height, frame.width)
            whole = VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
        picture = self._picture(whole, self.height, self.width)
        if frame.format.name.startswith("gray") and frame.color_range == ColorRange.MPEG:
            picture = _LIMITED_TO_FULL[picture]
        return self.orientation.apply(picture)

    def _picture(self, frame: VideoFrame, height: int, width: int) -> np.ndarray:
        rgb = self._reformatter.reformat(
            frame, width, height, "rgb24", interpolation=_METHOD, threads=1
        )
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
        return rows[:, : 3 * width].reshape(height, width, 3)
