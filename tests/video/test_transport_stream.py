"""Joined transport streams are read in full; lost packets are damage, wherever they are."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numbered import H264, HEVC, cut_by_stream_copy, numbers_of, remuxed, write_video

from taghead.errors import VideoError
from taghead.video import Segment, VideoReader
from taghead.video.transport_stream import count_joins

FRAMES, PID, PACKET = 20, 256, 188
MPEG2 = {"bf": "2", "g": "12", "b": "1500k"}
CODECS = {
    "h264": ("libx264", H264),
    "hevc": ("libx265", HEVC),
    "mpeg2video": ("mpeg2video", MPEG2),
}


def part(folder: Path, codec: str, start: int) -> bytes:
    """A transport stream whose clock is at a frame at the beginning."""
    encoder, options = CODECS[codec]
    path, times = folder / f"{codec} {start}.ts", list(range(start, start + FRAMES))
    return write_video(path, FRAMES, encoder, options=options, times=times).read_bytes()


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joined")
    path = folder / "joined.ts"
    path.write_bytes(part(folder, "h264", 0) + part(folder, "h264", FRAMES))
    return path


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("starts", [(0, FRAMES, 2 * FRAMES), (0, 0, 0), (7, 0, 20_000)])
def test_joined_parts_are_one_video(tmp_path: Path, codec: str, starts: tuple[int, ...]) -> None:
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part(tmp_path, codec, start) for start in starts))
    assert count_joins(path, PID, codec) == 2
    reader = VideoReader(path)
    assert numbers_of(reader.read(range(len(reader)))) == list(range(FRAMES)) * 3
    assert numbers_of(reader.read([45, 19, 20])) == [5, 19, 0]
    assert np.abs(reader.times - np.arange(3 * FRAMES) / 30).max() < 0.04
    assert np.diff(reader.times).min() >= 0  # the muxer of MPEG-2 begins a frame earlier
    if codec == "h264":
        assert np.abs(reader.times - np.arange(3 * FRAMES) / 30).max() < 0.001
        assert list(Segment(0.99, 1.51).frames(reader)) == list(range(30, 46))


def test_parts_of_one_recording_need_no_joins(joined: Path) -> None:
    one = joined.parent / "h264 0.ts"
    assert count_joins(one, PID, "h264") == 0
    assert len(VideoReader(one)) == FRAMES


@pytest.mark.parametrize("codec", CODECS)
def test_every_lost_packet_is_damage(tmp_path: Path, codec: str) -> None:
    """But for the last ones of a part if they hold a whole picture: that part is shorter."""
    whole, path = part(tmp_path, codec, 0) + part(tmp_path, codec, FRAMES), tmp_path / "lost.ts"
    lost = accepted = 0
    for at in range(0, len(whole), PACKET):
        if int.from_bytes(whole[at + 1 : at + 3], "big") & 0x1FFF != PID:
            continue
        path.write_bytes(whole[:at] + whole[at + PACKET :])
        lost += 1
        accepted += count_joins(path, PID, codec) > 0
    assert lost > 100
    assert accepted <= 3  # the first one, and pictures of one packet


@pytest.mark.parametrize("codec", CODECS)
def test_a_part_that_ends_within_a_picture_is_damaged(tmp_path: Path, codec: str) -> None:
    one, path = part(tmp_path, codec, 0), tmp_path / "cut.ts"
    packets = [one[at : at + PACKET] for at in range(0, len(one), PACKET)]
    rows = [
        number
        for number, packet in enumerate(packets)
        if int.from_bytes(packet[1:3], "big") & 0x1FFF == PID
    ]
    starts = [number for number in rows if packets[number][1] & 0x40]
    # of the first picture alone, nothing may be decoded
    first, last = max(pairwise(starts[1:]), key=lambda pair: pair[1] - pair[0])
    assert last - first > 2
    for end in range(first + 1, last):
        ends = [number for number in rows if number < end]
        if packets[ends[-1]][3] & 0x0F == 15 or not set(range(end, last)) & set(rows):
            continue  # the count goes on by chance; the picture is whole
        path.write_bytes(b"".join(packets[:end]) + part(tmp_path, codec, FRAMES))
        assert count_joins(path, PID, codec) == 0, end
        with pytest.raises(VideoError, match=rf"^{path}: damaged"):
            VideoReader(path)


def test_a_part_that_refers_to_what_is_gone_is_damaged(tmp_path: Path) -> None:
    """Its first pictures would be decoded with those of the part before."""
    options = {**H264, "bf": "2", "x264-params": "open-gop=1:keyint=12:min-keyint=12"}
    source = write_video(tmp_path / "open.mp4", 60, options=options)
    cut = cut_by_stream_copy(source, tmp_path / "cut.mp4", 30, 55)
    behind = remuxed(cut, tmp_path / "behind.ts")
    path = tmp_path / "joined.ts"
    path.write_bytes(part(tmp_path, "h264", 0) + behind.read_bytes())
    with pytest.raises(VideoError, match=rf"^{path}: damaged or truncated at packet 1\d$"):
        VideoReader(path)


def test_bytes_between_parts_are_damage(joined: Path, tmp_path: Path) -> None:
    half = joined.stat().st_size // 2 // PACKET * PACKET
    data, path = joined.read_bytes(), tmp_path / "apart.ts"
    path.write_bytes(data[:half] + b"rubbish" * 9 + data[half:])
    assert count_joins(path, PID, "h264") == 0
    flagged = bytearray(data)
    row = next(
        at
        for at in range(half, len(data), PACKET)
        if int.from_bytes(data[at + 1 : at + 3], "big") & 0x1FFF == PID
    )
    flagged[row + 1] |= 0x80  # a transmission error
    path.write_bytes(flagged)
    assert count_joins(path, PID, "h264") == 0
    with pytest.raises(VideoError, match=rf"^{path}: damaged"):
        VideoReader(path)
