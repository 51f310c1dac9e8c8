"""Frame sampling: which frames of a video make a clip."""

from typing import Literal

import numpy as np
import torch

from taghead.errors import check_counts

Sampling = Literal["uniform", "dense", "segments"]


def uniform_indices(num_available: int, num_frames: int) -> np.ndarray:
    """Frame indices spread evenly from the first frame to the last.

    They are `linspace(0, num_available - 1, num_frames)` truncated to integers, so that a video
    shorter than the clip repeats frames; a single index is that of the first frame.

    Args:
        num_available: Number of frames of the video.
        num_frames: Number of indices wanted.

    Shapes:
        - **output** `[num_frames]`, int64, never decreasing

    Raises:
        ValueError: If either number is not positive.
    """
    check_counts(num_available=num_available, num_frames=num_frames)
    return np.linspace(0, num_available - 1, num_frames).astype(np.int64)


def clip_indices(
    num_available: int,
    num_frames: int,
    sampling: Sampling = "uniform",
    stride: int = 1,
    num_clips: int = 1,
    train: bool = False,
) -> np.ndarray:
    """Frame indices of one clip of a video, or of several that a test averages over.

    - `uniform` spreads a clip from the first frame to the last, as :func:`uniform_indices` and in
      training too. Several clips interleave: in turn they take the uniform indices of
      `num_clips * num_frames` frames. A short video repeats its frames evenly.
    - `dense` takes every `stride`-th frame. In training a clip starts at a random frame; in a test,
      one clip lies in the middle of the video, and several start at even distances, the first one
      at the first frame, the last one as late as it can. In a video shorter than
      `(num_frames - 1) * stride + 1` frames, a clip starts at the first frame and repeats the last.
    - `segments` cuts the video's length into `num_frames` equal segments (`Temporal Segment
      Networks <https://arxiv.org/abs/1608.00859>`_) and takes from each the frame at a random
      position, in a test the one at its middle; of several clips, number v takes the one at
      `(v + 1/2) / num_clips` of the segment. Segments may begin and end within a frame: every
      frame can be drawn, and a short video repeats its frames evenly.

    Random numbers come from torch's global generator.

    Args:
        num_available: Number of frames of the video.
        num_frames: Number of frames of a clip.
        sampling: How they are chosen.
        stride: Distance between the frames of a dense clip.
        num_clips: Number of clips.
        train: Whether to sample as for training.

    Shapes:
        - **output** `[num_clips, num_frames]`, int64, never decreasing within a clip

    Raises:
        ValueError: If a number is not positive, or there is no such sampling.
    """
    check_counts(
        num_available=num_available, num_frames=num_frames, stride=stride, num_clips=num_clips
    )
    if sampling == "uniform":
        return uniform_indices(num_available, num_clips * num_frames).reshape(-1, num_clips).T
    if sampling == "dense":
        starts = _dense_starts(num_available - dense_span(num_frames, stride), num_clips, train)
        indices = starts[:, None] + stride * np.arange(num_frames)
        return np.minimum(indices, num_available - 1)
    if sampling == "segments":
        # in units of a frame's num_frames-th part a segment is num_available long, a whole number
        offsets = _offsets_in_segment(num_available, num_frames, num_clips, train)
        return (num_available * np.arange(num_frames) + offsets) // num_frames
    raise ValueError(f"sampling must be uniform, dense or segments (got {sampling!r})")


def dense_span(num_frames: int, stride: int) -> int:
    """Frames from the first to the last of a dense clip, both counted."""
    return (num_frames - 1) * stride + 1


def _dense_starts(latest: int, num_clips: int, train: bool) -> np.ndarray:
    latest = max(0, latest)
    if train:
        return torch.randint(latest + 1, (num_clips,)).numpy()
    return np.array([latest // 2]) if num_clips == 1 else uniform_indices(latest + 1, num_clips)


def _offsets_in_segment(length: int, num_frames: int, num_clips: int, train: bool) -> np.ndarray:
    """A whole number below `length` for each clip and segment, or for each clip."""
    if train:
        return torch.randint(length, (num_clips, num_frames)).numpy()
    return (2 * np.arange(num_clips)[:, None] + 1) * length // (2 * num_clips)
