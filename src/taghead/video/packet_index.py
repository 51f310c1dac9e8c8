"""Index of a stream's packets: frame timestamps, shown frames and seek points.

Pure functions of what packets state; the survey calls them once a file is read.
"""

from typing import NamedTuple

import numpy as np


class PacketInfo(NamedTuple):
    """The properties of a packet that a survey needs."""

    timestamp: int | None
    num_shown: int  # pictures
    is_discarded: bool


def hides_first_frame(packets: list[PacketInfo]) -> bool:
    """Whether the first frame is hidden though frames before it are shown: no cut leads there."""
    start = packets[0].timestamp if packets else None
    if start is None or not packets[0].is_discarded:
        return False
    return any(
        packet.timestamp is not None and packet.timestamp < start and not packet.is_discarded
        for packet in packets
    )


def min_frames_shown(packets: list[PacketInfo]) -> int:
    """How many frames packets show, less those that lack a reference.

    Those follow the first packet and come before it in time; anywhere else such a time is damage.
    """
    leading = 0
    for packet in packets[1:]:
        start = packets[0].timestamp
        if start is None or packet.timestamp is None or packet.timestamp >= start:
            break
        leading += 1
    return sum(bool(one.num_shown) and not one.is_discarded for one in packets) - leading


def seek_points(
    keyframes: list[tuple[int | None, int | None]], timestamps: np.ndarray, seeks_by_dts: bool
) -> np.ndarray:
    """Timestamps of keyframes and where to seek for them, `[S, 2]`, in order."""
    expected = set(timestamps.tolist())
    pairs = [
        (pts, dts if seeks_by_dts and dts is not None else pts)
        for pts, dts in keyframes
        if pts in expected
    ]
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def frame_timestamps(
    packets: list[PacketInfo],
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Timestamp of each frame, and whether it is shown; None where packets do not tell.

    Pre-roll is decoded but not shown. Pictures before the keyframe that the file starts with
    refer to others which it lacks, so that decoders leave out some of them: unless they are hidden
    anyway, packets do not tell which.
    """
    start = packets[0].timestamp
    frames = sorted(
        (packet.timestamp, not packet.is_discarded)
        for packet in packets
        if packet.timestamp is not None and packet.num_shown
    )
    timestamps = np.array([timestamp for timestamp, _ in frames], np.int64)
    shown = np.array([is_shown for _, is_shown in frames], bool)
    one_each = all(one.timestamp is not None and one.num_shown < 2 for one in packets)
    if start is None or not one_each or not len(timestamps) or (np.diff(timestamps) == 0).any():
        return None, None
    if shown[timestamps < start].any() or not shown.any():
        return None, None
    return timestamps[timestamps >= start], shown[timestamps >= start]
