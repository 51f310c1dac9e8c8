"""A clip as the model sees it, and the same part of the video as a person wants to see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from taghead.video import Preprocessing, VideoReader

LARGEST = 384  # pixels of a side, of the pictures for people


@dataclass(frozen=True)
class SeenClip:
    """One view of a video.

    Args:
        path: The video file.
        view: Which of the views that a test averages over.
        num_views: How many there are.
        indices: The frames' numbers in the file.
        seconds: When they are shown.
        tensor: What the model takes, `[3, T_in, crop, crop]`.
        pictures: The same frames and the same part of them, `[T_in, S, S, 3]`, uint8: as sharp as
            the file has it, up to 384 pixels a side.
    """

    path: Path
    view: int
    num_views: int
    indices: np.ndarray
    seconds: np.ndarray
    tensor: Tensor
    pictures: np.ndarray

    @property
    def rate(self) -> float:
        """Frames per second of the view, 25 where the file's times do not tell."""
        length = float(self.seconds[-1] - self.seconds[0])
        rate = (len(self.seconds) - 1) / length if length > 0 else 25.0
        return min(max(rate, 1.0), 60.0)


def see(path: str | Path, preprocessing: Preprocessing, view: int = 0) -> SeenClip:
    """Reads one view of a video file.

    Args:
        path: The video file.
        preprocessing: How videos become clips.
        view: Which view: those of a clip in time follow one another.

    Raises:
        ValueError: If there is no such view.
        VideoError: If the file cannot be read.
    """
    if not 0 <= view < preprocessing.num_views:
        raise ValueError(
            f"view must be below {preprocessing.num_views}, the views of the model's test "
            f"(got {view})"
        )
    clip, crop = divmod(view, preprocessing.test_crops)
    with VideoReader(path) as reader:
        indices = preprocessing.test_indices(reader)[clip]
        wanted, places = np.unique(indices, return_inverse=True)
        frames = reader.read(wanted)
        seconds = reader.times[indices]
    box = preprocessing.test_box(reader.height, reader.width, crop)
    return SeenClip(
        Path(path),
        view,
        preprocessing.num_views,
        indices,
        seconds,
        preprocessing.test_view(frames[places], crop),
        _pictures(frames, box, preprocessing.crop)[places],
    )


def _pictures(frames: np.ndarray, box: tuple[float, ...], smallest: int) -> np.ndarray:
    """The part of frames `[T, H, W, 3]` in a box, as squares of an even side."""
    height, width = frames.shape[1:3]
    top, left, bottom, right = (
        part * side for part, side in zip(box, (height, width) * 2, strict=True)
    )
    side = round(min(max(bottom - top, smallest), LARGEST) / 2) * 2
    pixels = (left, top, right, bottom)
    return np.stack(
        [
            np.asarray(
                Image.fromarray(frame).resize((side, side), Image.Resampling.LANCZOS, pixels)
            )
            for frame in frames
        ]
    )
