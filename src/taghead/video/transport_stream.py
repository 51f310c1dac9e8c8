"""MPEG transport streams joined end to end: where a stream begins anew, and where it lost packets.

The packets of a stream are counted from 0 to 15. Parts that are joined count each by itself, which
libavformat takes for damage, as it does a lost packet.
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np

from taghead.video import bitstream

_PACKET = 188  # bytes
_HEADER = 6  # bytes: up to the flags of the adaptation field
_AT_ONCE = 2**16  # packets
_CODECS = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video"})


def count_joins(path: Path, pid: int, codec: str) -> int:
    """How many joins a stream has; 0 if a packet of it is lost or damaged anywhere.

    At a join, the part before ends with a whole frame, and the part behind begins with a keyframe
    of a closed GOP, so that no picture refers past it.

    Args:
        path: A file of the container `mpegts`.
        pid: Number of the stream in it.
        codec: libavcodec's name of its codec.
    """
    if codec not in _CODECS:
        return 0
    with path.open("rb") as file:
        found = _headers(file, pid)
        if found is None:
            return 0
        numbers, headers = found
        begins_frame = headers[:, 1] & 0x40 > 0
        if not begins_frame.any() or (headers[:, 1] & 0x80).any():  # a transmission error
            return 0
        joins = np.flatnonzero(_breaks(headers))
        starts = np.append(np.flatnonzero(begins_frame), len(headers))
        for join in joins.tolist():
            at = int(np.searchsorted(starts, join))
            if at == 0 or starts[at] != join:
                return 0
            before, behind = (
                _payload(file, numbers[starts[i] : starts[i + 1]]) for i in (at - 1, at)
            )
            if not _is_whole(before, headers[join - 1]):
                return 0
            if not bitstream.starts_anew(codec, _frame(behind), 0):
                return 0
    return len(joins)


def _headers(file: BinaryIO, pid: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Numbers and headers of a stream's packets, `[N]` and `[N, 6]`; None if any is out of step."""
    numbers, headers, first = [], [], 0
    while len(data := file.read(_AT_ONCE * _PACKET)) >= _PACKET:
        whole = len(data) // _PACKET
        packets = np.frombuffer(data, np.uint8, whole * _PACKET).reshape(whole, _PACKET)
        if (packets[:, 0] != 0x47).any():
            return None
        pids = (packets[:, 1].astype(int) & 0x1F) << 8 | packets[:, 2]
        rows = np.flatnonzero(pids == pid)
        numbers.append(first + rows)
        headers.append(packets[rows, :_HEADER])
        first += whole
    return (np.concatenate(numbers), np.concatenate(headers)) if numbers else None


def _breaks(headers: np.ndarray) -> np.ndarray:
    """Which packets do not continue the count; they may announce that it begins anew."""
    counts, has_payload = headers[:, 3] & 0x0F, headers[:, 3] & 0x10 > 0
    announced = (headers[:, 3] & 0x20 > 0) & (headers[:, 4] > 0) & (headers[:, 5] & 0x80 > 0)
    expected = (counts[:-1] + has_payload[1:]) & 0x0F
    return np.append(False, (counts[1:] != expected) & ~announced[1:])


def _payload(file: BinaryIO, numbers: np.ndarray) -> memoryview:
    """What some packets carry."""
    parts = []
    for number in numbers.tolist():
        file.seek(number * _PACKET)
        packet = file.read(_PACKET)
        if packet[3] & 0x10:
            parts.append(packet[5 + packet[4] if packet[3] & 0x20 else 4 :])
    return memoryview(b"".join(parts))


def _is_whole(frame: memoryview, last_header: np.ndarray) -> bool:
    """Whether a packet of an elementary stream ends where it was to end.

    That is after as many bytes as it states; or, as a video's may state none, where the last packet
    that carries it is filled up with stuffing. One that fills it by chance counts as cut short.
    """
    size = int.from_bytes(frame[4:6], "big")
    if bytes(frame[:3]) != b"\x00\x00\x01" or size:
        return size == len(frame) - 6
    has_field, length, flags = last_header[3] & 0x20, int(last_header[4]), int(last_header[5])
    if not has_field or (length and flags & 0b11):  # with data of a length of its own
        return False
    clocks = 6 * (flags >> 4 & 1) + 6 * (flags >> 3 & 1) + (flags >> 2 & 1)
    return length == 0 or length > 1 + clocks


def _frame(packet: memoryview) -> memoryview:
    """What follows the header of a packet of an elementary stream."""
    return packet[9 + packet[8] :] if len(packet) > 8 else packet[:0]
