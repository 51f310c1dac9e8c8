"""Presentation times of decoded frames, from what packets and decoder state about them.

Pure functions of timestamps; a reader calls them where packets alone do not tell the frames.
"""

import numpy as np

NO_TIMESTAMP = np.iinfo(np.int64).min  # as FFmpeg's AV_NOPTS_VALUE

# Containers whose clock may begin anew within a file, such as in joined recordings; a gap longer
# than this is such a place too, as players take it.
_CLOCK_RESTARTS = frozenset({"mpegts", "mpeg"})
_MAX_GAP_SEC = 10.0


def presentation_times(
    container: str,
    pts: np.ndarray,
    output_dts: np.ndarray,
    packet_dts: np.ndarray,
    stated_end: int,
    ticks_per_sec: float,
) -> np.ndarray:
    """Timestamp of each frame in ticks, never falling, equal neighbours kept.

    They are the presentation times that packets state. AVI states decode times alone, and
    libavformat's guesses of the others are wrong where frames are reordered: there, as in players,
    a frame has the decode time of the packet on which the decoder gives it, less that of the first
    one.

    Args:
        container: libavformat's name of the container.
        pts: Presentation time of each frame in display order, `[T]`.
        output_dts: Decode time of the packet on which each frame came out, `[T]`; those that came
            after the last packet have none.
        packet_dts: Decode time of each packet that is not empty.
        stated_end: End of the stream that the container states; 0 if it states none.
        ticks_per_sec: Ticks of a second.

    Shapes:
        - **output** `[T]`, int64; `NO_TIMESTAMP` in all of it if packets state no times
    """
    if not len(pts):
        return pts
    has_pts = (pts != NO_TIMESTAMP).all()
    if container != "avi" and has_pts:
        if container in _CLOCK_RESTARTS:
            return _joined(pts, _MAX_GAP_SEC * ticks_per_sec)
        if (np.diff(pts) >= 0).all():
            return pts
    by_dts = _by_decode_times(output_dts, np.sort(packet_dts), stated_end)
    if by_dts is not None:
        return by_dts
    known = np.flatnonzero(pts != NO_TIMESTAMP)
    if not len(known):
        return np.full(len(pts), NO_TIMESTAMP)
    return _filled(known, np.sort(pts[known]), len(pts))


def _filled(known: np.ndarray, times: np.ndarray, num_frames: int) -> np.ndarray:
    """Times of all frames from those of some: evenly between them, and before and behind them."""
    span = known[-1] - known[0]
    step = (times[-1] - times[0]) / span if span else 0.0
    frames = np.arange(num_frames)
    filled = np.interp(frames, known, times)
    filled += step * (np.minimum(frames - known[0], 0) + np.maximum(frames - known[-1], 0))
    return np.rint(filled).astype(np.int64)


def _joined(pts: np.ndarray, max_gap: float) -> np.ndarray:
    """Times that go on where the clock begins anew: as far apart as frames mostly are."""
    steps = np.diff(pts)
    regular = (steps >= 0) & (steps <= max_gap)
    usual = int(np.median(steps[regular])) if regular.any() else 1
    return pts[0] + np.append(0, np.cumsum(np.where(regular, steps, usual)))


def _by_decode_times(
    output_dts: np.ndarray, packet_dts: np.ndarray, stated_end: int
) -> np.ndarray | None:
    """Times of frames by decode times; None if these are not known."""
    if not len(packet_dts) or packet_dts[0] == NO_TIMESTAMP:
        return None
    known = output_dts[output_dts != NO_TIMESTAMP]
    num_known, num_frames = len(known), len(output_dts)
    if (output_dts[:num_known] == NO_TIMESTAMP).any() or (np.diff(known) < 0).any():
        return None
    if not num_known and num_frames == len(packet_dts):
        return packet_dts
    # the decoder's delay is no part of a frame's time
    times = known - known[0] + packet_dts[0] if num_known else packet_dts[:1]
    num_left = num_frames - len(times)
    ends = np.linspace(times[-1], _end(packet_dts, stated_end), num_left + 2)[1:-1]
    return np.append(times, np.rint(ends).astype(np.int64))


def _end(packet_dts: np.ndarray, stated_end: int) -> int:
    """Where the last frame ends: as stated, unless this is before it or long behind it."""
    last, steps = int(packet_dts[-1]), np.diff(packet_dts)
    if last < stated_end <= last + steps.max(initial=1):
        return stated_end
    return last + max(1, int(np.median(steps)) if len(steps) else 1)
