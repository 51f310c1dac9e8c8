"""Video streams of a file: whether they run beside each other, or one begins where another ends.

Of several video streams one is read. Beside it there may be a second camera or a cover picture;
but parts joined end to end, each with a stream of its own, are one video, to be read in full.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from taghead.errors import VideoError
from taghead.video.demux import SKIP_DECODING, open_stream
from taghead.video.limits import Limits

_LAYOUTS = ((188, 0), (192, 4), (204, 0))  # bytes of a packet, and of them before its header
_SYNC, _IN_STEP = 0x47, 5
_SEARCHED = 2**17  # bytes; libavformat gives up after half as many
_AT_ONCE = 2**15  # packets
_MOST_GAPS = 100  # places where packets are out of step
_SHARED = Fraction(1, 20)  # of the shorter stream: clocks are rounded
_LONG_TURN = 8  # frames; streams that run beside each other take turns of some frames at most
_TYPES = {1: "MPEG-1", 2: "MPEG-2", 0x10: "MPEG-4", 0x1B: "H.264", 0x24: "HEVC", 0x33: "VVC"}


def check_parallel(
    path: Path, container: InputContainer, stream: VideoStream, limits: Limits
) -> None:
    """Refuses a file of which a video stream goes on in another one, or in another codec.

    In transport streams, libavformat finds the streams at the beginning alone, and clocks begin
    anew: there, the order in the file tells. Elsewhere, times do.

    Args:
        path: The video file.
        container: The file, opened.
        stream: The stream to be read.
        limits: What the file may ask for.

    Raises:
        VideoError: If only a part of the video would be read.
    """
    if container.format.name == "mpegts":
        _check_transport_stream(path, container, stream)
        return
    others = [
        other.index
        for other in container.streams.video
        if other is not stream and not other.disposition & Disposition.attached_pic
    ]
    if others:
        with open_stream(path, 1, SKIP_DECODING, stream.index, limits) as opened:
            _check_times(path, *opened, others)


def _check_times(
    path: Path, container: InputContainer, stream: VideoStream, others: list[int]
) -> None:
    spans: dict[int, tuple[Fraction, Fraction, int]] = {}
    for index in others:
        container.streams[index].discard = Discard.default
    for packet in container.demux([stream.index, *others]):
        if not packet.size or packet.pts is None or packet.time_base is None:
            continue
        start = packet.pts * packet.time_base
        end = start + (packet.duration or 1) * packet.time_base
        first, last, count = spans.get(packet.stream.index, (start, end, 0))
        spans[packet.stream.index] = min(first, start), max(last, end), count + 1
    if stream.index not in spans:
        return
    start, end, _ = spans[stream.index]
    for index in others:
        first, last, count = spans.get(index, (start, end, 0))
        shared = min(end, last) - max(start, first)
        if count > 1 and shared <= _SHARED * min(end - start, last - first):  # one is a cover
            raise VideoError(
                f"{path}: its video streams {stream.index} ({float(start):.3f} to "
                f"{float(end):.3f} s) and {index} ({float(first):.3f} to {float(last):.3f} s) "
                "follow one another: they are parts of one video, and one stream is read\n"
                "Give each a file of its own, and join those if they are alike: ffmpeg -i FILE "
                f"-map 0:{index} -c copy PART for each, then ffmpeg -f concat -i LIST -c copy WHOLE"
            )


def _check_transport_stream(path: Path, container: InputContainer, stream: VideoStream) -> None:
    with path.open("rb") as file:
        known = {one.id for one in container.streams.video}
        starts, types = _pictures_and_types(path, file, known)
    found = types.get(stream.id, [])
    if len(found) > 1:
        names = [_TYPES.get(number, f"type 0x{number:02x}") for number in found]
        raise VideoError(
            f"{path}: its video stream 0x{stream.id:x} changes from {names[0]} to {names[1]}: "
            "it is joined of parts of several kinds, and one kind is read\n"
            "Encode the parts alike, and join those: ffmpeg -i PART -map 0:v:0 -c:v libx264 NEW.ts "
            "for each, then cat NEW*.ts > WHOLE.ts"
        )
    own = starts.get(stream.id, np.empty(0, np.int64))
    for pid, other in starts.items():
        if pid != stream.id and _take_long_turns(own, other):
            raise VideoError(
                f"{path}: its video streams 0x{stream.id:x} ({len(own)} pictures) and 0x{pid:x} "
                f"({len(other)}) follow one another: it is joined of parts, and one is read\n"
                "Remux the parts, which gives their streams one number, and join those: ffmpeg -i "
                "PART -map 0:v:0 -c copy NEW.ts for each, then cat NEW*.ts > WHOLE.ts;\nparts that "
                f"are lost are -map 0:i:0x{stream.id:x} and -map 0:i:0x{pid:x} of this file"
            )


def _take_long_turns(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two streams, by the order of their frames in the file, follow one another."""
    if not len(one) or not len(other):
        return False
    is_other = np.repeat([False, True], [len(one), len(other)])
    in_order = is_other[np.argsort(np.concatenate([one, other]), kind="stable")]
    begins = np.append(True, in_order[1:] != in_order[:-1])
    turns = np.bincount(in_order[begins], minlength=2)
    lengths = np.array([len(one), len(other)]) / turns
    return bool(turns.min() == 1 and turns.max() <= 2) or bool(lengths.min() >= _LONG_TURN)


def _pictures_and_types(
    path: Path, file: BinaryIO, known: set[int]
) -> tuple[dict[int, np.ndarray], dict[int, list[int]]]:
    """Where each video stream's frames begin, by its number, and which types it has in turn."""
    rows: dict[int, list[np.ndarray]] = {}
    types: dict[int, list[int]] = {}
    tables: set[int] = set()
    first = 0
    for packets in _packets(path, file):
        pids = (packets[:, 1].astype(int) & 0x1F) << 8 | packets[:, 2]
        begins = (packets[:, 1] & 0x40 > 0) & (packets[:, 3] & 0x10 > 0)
        for packet in packets[begins & (pids == 0)]:
            tables.update(_programs(_section(packet)))
        for packet in packets[begins & np.isin(pids, list(tables))]:
            for pid, kind in _streams(_section(packet)):
                if types.setdefault(pid, [kind])[-1] != kind:
                    types[pid].append(kind)
        numbers = np.flatnonzero(begins)
        ids = _stream_ids(packets[numbers])
        is_video = (ids & 0xF0 == 0xE0) | (np.isin(pids[numbers], list(known)) & (ids >= 0))
        for pid in np.unique(pids[numbers][is_video]).tolist():
            mine = numbers[is_video & (pids[numbers] == pid)]
            rows.setdefault(pid, []).append(first + mine)
        first += len(packets)
    return {pid: np.concatenate(found) for pid, found in rows.items()}, types


def _packets(path: Path, file: BinaryIO) -> Iterator[np.ndarray]:
    """Transport packets `[N, 188]` in order; what is out of step between them is left out."""
    at = gaps = 0
    while (found := _next_in_step(file, at)) is not None:
        at, size, lead = found
        file.seek(at)
        while len(data := file.read(_AT_ONCE * size)) >= size:
            whole = len(data) // size
            packets = np.frombuffer(data, np.uint8, whole * size).reshape(whole, size)
            lost = np.flatnonzero(packets[:, lead] != _SYNC)
            end = int(lost[0]) if len(lost) else whole
            yield packets[:end, lead : lead + 188]
            at += end * size
            if len(lost):
                at, gaps = at + 1, gaps + 1
                break
        else:
            return
        if gaps > _MOST_GAPS:
            raise VideoError(f"{path}: damaged: its packets are out of step at {gaps} places")


def _next_in_step(file: BinaryIO, at: int) -> tuple[int, int, int] | None:
    """The next byte from which packets follow each other, their size, and what leads them."""
    file.seek(at)
    data = np.frombuffer(file.read(_SEARCHED), np.uint8)
    found: list[tuple[int, int, int]] = []
    for size, lead in _LAYOUTS:
        count = min(_IN_STEP, max(1, len(data) // size))
        places = len(data) - size * count + 1
        in_step = np.ones(max(0, places), bool)
        for start in range(lead, lead + size * count, size):
            in_step &= data[start : start + len(in_step)] == _SYNC
        found += [(at + int(hit), size, lead) for hit in np.flatnonzero(in_step)[:1]]
    return min(found, default=None, key=lambda one: one[0])


def _offsets(packets: np.ndarray) -> np.ndarray:
    """Where the payload of each packet begins."""
    return np.where(packets[:, 3] & 0x20 > 0, 5 + packets[:, 4].astype(int), 4)


def _stream_ids(packets: np.ndarray) -> np.ndarray:
    """The stream id of the frame that begins in each packet; -1 if none does."""
    at = _offsets(packets)
    inside = np.minimum(at, 184)[:, np.newaxis] + np.arange(4)
    head = np.take_along_axis(packets, inside, axis=1).astype(int)
    is_start = (head[:, 0] == 0) & (head[:, 1] == 0) & (head[:, 2] == 1) & (at <= 184)
    return np.where(is_start, head[:, 3], -1)


def _section(packet: np.ndarray) -> bytes:
    """The table that begins in a packet, without its checksum; what exceeds the packet is cut."""
    payload = packet[int(_offsets(packet[np.newaxis])[0]) :].tobytes()
    table = payload[1 + payload[0] :] if payload else b""
    length = int.from_bytes(table[1:3], "big") & 0x0FFF
    return table[: max(0, length - 1)]


def _programs(table: bytes) -> Iterator[int]:
    """The numbers of the tables of programs that a table of all of them lists."""
    if table[:1] == b"\x00":
        for at in range(8, len(table) - 3, 4):
            if table[at : at + 2] != b"\x00\x00":
                yield int.from_bytes(table[at + 2 : at + 4], "big") & 0x1FFF


def _streams(table: bytes) -> Iterator[tuple[int, int]]:
    """Number and type of each stream of a program."""
    if table[:1] != b"\x02":
        return
    at = 12 + (int.from_bytes(table[10:12], "big") & 0x0FFF)
    while at + 5 <= len(table):
        yield int.from_bytes(table[at + 1 : at + 3], "big") & 0x1FFF, table[at]
        at += 5 + (int.from_bytes(table[at + 3 : at + 5], "big") & 0x0FFF)
