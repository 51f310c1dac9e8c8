"""A view of a video: the model's input tensor, and the same frames and crop as pictures."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from taghead.video import Preprocessing, VideoReader

MAX_SIDE = 384  # pixels of a picture


@dataclass(frozen=True)
class ClipView:
    """One view of a video.

    Args:
        path: The video file.
        view: Index of the view among those that a test averages over.
        num_views: Number of those views.
        indices: Indices of the frames in the file, `[T_in]`.
        seconds: Timestamps of the frames, `[T_in]`.
        tensor: The model's input, `[3, T_in, crop, crop]`.
        pictures: The same frames and crop at the file's resolution, up to 384 pixels a side,
            `[T_in, S, S, 3]`, uint8.
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
        """Frames per second of the view; 25 if all timestamps are equal."""
        length = float(self.seconds[-1] - self.seconds[0])
        rate = (len(self.seconds) - 1) / length if length > 0 else 25.0
        return min(max(rate, 1.0), 60.0)


def check_view(preprocessing: Preprocessing, view: int) -> None:
    """Checks that there is a view of an index.

    Raises:
        ValueError: If there is not.
    """
    if not 0 <= view < preprocessing.num_views:
        raise ValueError(
            f"view must be below {preprocessing.num_views}, the views of the model's test "
            f"(got {view})"
        )


def load_view(path: str | Path, preprocessing: Preprocessing, view: int = 0) -> ClipView:
    """Reads one view of a video file.

    Args:
        path: The video file.
        preprocessing: The model's preprocessing.
        view: Index of the view; the crops of one clip in time follow one another.

    Raises:
        ValueError: If there is no such view.
        VideoError: If the file cannot be read.
    """
    check_view(preprocessing, view)
    clip, crop = divmod(view, preprocessing.test_crops)
    with VideoReader(path, limits=preprocessing.limits) as reader:
        reader.limits.check_clip(reader.path, preprocessing.num_frames, reader.height, reader.width)
        indices = preprocessing.test_indices(reader)[clip]
        wanted, positions = np.unique(indices, return_inverse=True)
        box = preprocessing.test_box(reader.height, reader.width, crop)
        tensors, pictures = [], []
        with closing(reader.read_each(wanted)) as frames:
            for picture in frames:
                frame = np.ascontiguousarray(picture)
                tensors.append(preprocessing.test_view(frame[np.newaxis], crop))
                pictures.append(_picture(frame, box, preprocessing.crop))
    return ClipView(
        reader.path,
        view,
        preprocessing.num_views,
        indices,
        reader.times[indices],
        torch.cat(tensors, dim=1)[:, positions],
        np.stack(pictures)[positions],
    )


def _picture(frame: np.ndarray, box: tuple[float, ...], smallest: int) -> np.ndarray:
    """The crop of a frame `[H, W, 3]` in a box, resized to a square of an even side."""
    height, width = frame.shape[:2]
    top, left, bottom, right = (
        part * side for part, side in zip(box, (height, width) * 2, strict=True)
    )
    side = round(min(max(bottom - top, smallest), MAX_SIDE) / 2) * 2
    pixels = (left, top, right, bottom)
    picture = Image.fromarray(frame)
    return np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS, pixels))
