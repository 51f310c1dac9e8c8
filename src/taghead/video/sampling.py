"""Which frames of a video make a clip."""

import numpy as np


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
    for name, value in (("num_available", num_available), ("num_frames", num_frames)):
        if value < 1:
            raise ValueError(f"{name} must be a positive integer (got {value})")
    return np.linspace(0, num_available - 1, num_frames).astype(np.int64)
