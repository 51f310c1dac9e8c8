"""Streams that follow one another are never read in part; those beside each other are left out."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numbered import H264, HEVC, draw, numbers_of, write_video

from taghead.errors import VideoError
from taghead.video import VideoReader

FRAMES, PACKET, PID, OTHER_PID = 20, 188, 256, 300
FOLLOW = "follow one another"


def part(folder: Path, start: int, codec: str = "libx264", **options: str) -> bytes:
    """A transport stream of 20 frames whose clock is at `start` frames."""
    encoding = {"libx264": H264, "libx265": HEVC, "mpeg2video": {"bf": "2", "g": "12"}}[codec]
    path, times = folder / "part.ts", list(range(start, start + FRAMES))
    write_video(
        path, FRAMES, codec, options=encoding, times=times, container_options=options or None
    )
    return path.read_bytes()


def renumbered(data: bytes, old: int, new: int) -> bytes:
    """A transport stream with another number of a stream in packets, but not in its tables."""
    packets = np.frombuffer(data, np.uint8).reshape(-1, PACKET).copy()
    pids = (packets[:, 1].astype(int) & 0x1F) << 8 | packets[:, 2]
    packets[pids == old, 1] = packets[pids == old, 1] & 0xE0 | new >> 8
    packets[pids == old, 2] = new & 0xFF
    return packets.tobytes()


OTHER_STREAM = {"mpegts_start_pid": str(OTHER_PID)}
OTHER_PROGRAM = {**OTHER_STREAM, "mpegts_pmt_start_pid": "5000", "mpegts_service_id": "2"}


@pytest.mark.parametrize("start", [0, FRAMES, 20_000])
@pytest.mark.parametrize("options", [OTHER_STREAM, OTHER_PROGRAM])
@pytest.mark.parametrize("times", [1, 2])
def test_parts_with_streams_of_their_own_are_refused(
    tmp_path: Path, start: int, options: dict[str, str], times: int
) -> None:
    """Whether the clock goes on, begins anew or jumps, and however often they alternate."""
    one, other = part(tmp_path, 0), part(tmp_path, start, **options)
    path = tmp_path / "joined.ts"
    path.write_bytes((one + other) * times)
    message = (
        rf"^{path}: its video streams 0x100 \({FRAMES * times} pictures\) and 0x12c "
        rf"\({FRAMES * times}\) {FOLLOW}: .*\nRemux the parts.*ffmpeg -i PART -map 0:v:0 -c copy"
    )
    with pytest.raises(VideoError, match=message) as refusal:
        VideoReader(path)
    assert str(refusal.value).count("\n") == 2


def test_a_stream_far_from_both_ends_is_seen(tmp_path: Path) -> None:
    """libavformat lists those of the first 5 MB, and of the last ones, where it looks for times."""
    path, one = tmp_path / "joined.ts", part(tmp_path, 0)
    path.write_bytes(one * 500 + part(tmp_path, 0, **OTHER_STREAM) + one * 500)
    assert path.stat().st_size > 12_000_000
    with av.open(path) as container:
        assert len(container.streams.video) == 1
    with pytest.raises(VideoError, match=rf"\(20000 pictures\) and 0x12c \(20\) {FOLLOW}"):
        VideoReader(path)


@pytest.mark.parametrize(("size", "lead"), [(192, 4), (204, 0)])
def test_other_sizes_of_packets(tmp_path: Path, size: int, lead: int) -> None:
    def padded(data: bytes) -> bytes:
        packets = (data[at : at + PACKET] for at in range(0, len(data), PACKET))
        return b"".join((bytes(lead) + packet).ljust(size, b"\0") for packet in packets)

    one, path = padded(part(tmp_path, 0)), tmp_path / "joined.m2ts"
    path.write_bytes(one + padded(part(tmp_path, FRAMES, **OTHER_STREAM)))
    with pytest.raises(VideoError, match=FOLLOW):
        VideoReader(path)
    path.write_bytes(one)
    assert len(VideoReader(path)) == FRAMES


@pytest.mark.parametrize("between", [b"", b"rubbish" * 100, b"\x47" * 5000])
def test_parts_that_are_out_of_step(tmp_path: Path, between: bytes) -> None:
    """The first one ends within a packet, or something else stands between them."""
    path = tmp_path / "joined.ts"
    path.write_bytes(part(tmp_path, 0)[:-100] + between + part(tmp_path, 0, **OTHER_STREAM))
    with pytest.raises(VideoError, match=FOLLOW):
        VideoReader(path)


def test_packets_out_of_step_everywhere_are_damage_at_once(tmp_path: Path) -> None:
    data, path = part(tmp_path, 0), tmp_path / "torn.ts"
    pieces = [data[at : at + 20 * PACKET] for at in range(0, len(data), 20 * PACKET)]
    path.write_bytes(b"x".join(pieces * 40))
    with pytest.raises(VideoError, match=rf"^{path}: damaged"):
        VideoReader(path)


@pytest.mark.parametrize(("codec", "name"), [("libx265", "HEVC"), ("mpeg2video", "MPEG-2")])
@pytest.mark.parametrize("options", [{}, OTHER_STREAM])
def test_parts_of_other_codecs_are_refused(
    tmp_path: Path, codec: str, name: str, options: dict[str, str]
) -> None:
    """The decoder of the first part gives nothing of the second one, some without an error."""
    path, one = tmp_path / "joined.ts", part(tmp_path, 0)
    path.write_bytes(one + part(tmp_path, FRAMES, codec, **options))
    reason = FOLLOW if options else rf"0x100 changes from (H.264 to {name}|{name} to H.264)"
    with pytest.raises(VideoError, match=rf"^{path}: its video streams? .*{reason}"):
        VideoReader(path)


def test_parts_whose_video_and_audio_change_numbers_are_refused(tmp_path: Path) -> None:
    """As where a recorder lists the sound first in one part, and last in the next."""

    def with_sound(path: Path, kinds: Sequence[str]) -> bytes:
        with av.open(path, "w") as container:
            streams = {kind: container.add_stream(kind, rate=rate) for kind, rate in kinds}
            video, sound = streams["libx264"], streams["mp2"]
            video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
            sound.layout = "mono"
            for number in range(FRAMES):
                frame = av.VideoFrame.from_ndarray(draw(number))
                frame.pts, frame.time_base = number, Fraction(1, 30)
                container.mux(video.encode(frame))
                noise = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), "s16", "mono")
                noise.sample_rate, noise.pts = 48_000, 1600 * number
                container.mux(sound.encode(noise))
            container.mux([*video.encode(), *sound.encode()])
        return path.read_bytes()

    kinds = [("libx264", 30), ("mp2", 48_000)]
    parts = [with_sound(tmp_path / "part.ts", order) for order in (kinds, kinds[::-1])]
    path = tmp_path / "joined.ts"
    path.write_bytes(parts[0] + parts[1])
    with pytest.raises(VideoError, match=rf"^{path}: cannot be opened"):
        VideoReader(path)
    path.write_bytes(parts[0] * 300 + parts[1] + parts[0] * 300)
    with pytest.raises(VideoError, match=rf"^{path}: its video stream 0x100 changes from H.264"):
        VideoReader(path)
    path.write_bytes(parts[0] * 2)
    assert len(VideoReader(path)) == 2 * FRAMES


def test_segments_of_a_download_are_one_video(tmp_path: Path) -> None:
    """They are of one encoding, so that their clock and numbers go on."""
    playlist = {"hls_time": "0.4", "hls_list_size": "0"}
    write_video(tmp_path / "list.m3u8", 60, container_options=playlist)
    segments = sorted(tmp_path.glob("list*.ts"))
    assert len(segments) > 3
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(segment.read_bytes() for segment in segments))
    assert numbers_of(VideoReader(path).read(range(60))) == list(range(60))


def test_a_part_of_another_size_is_read(tmp_path: Path) -> None:
    one = part(tmp_path, 0)
    times = list(range(FRAMES, 2 * FRAMES))
    other = write_video(tmp_path / "large.ts", FRAMES, times=times, size=(240, 320))
    path = tmp_path / "joined.ts"
    path.write_bytes(one + other.read_bytes())
    reader = VideoReader(path)
    pictures = reader.read(range(len(reader)))
    assert pictures.shape == (2 * FRAMES, 120, 160, 3)
    assert numbers_of(pictures) == [*range(FRAMES)] * 2


# streams beside each other -----------------------------------------------------------------------


def write_streams(path: Path, streams: Sequence[Iterable[int]]) -> Path:
    """A file with a video stream for each list of frames, which carry their times' numbers."""
    with av.open(path, "w") as container:
        packets = []
        for numbers in streams:
            stream = container.add_stream("libx264", rate=30, options=H264)
            stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 30)
            for number in numbers:
                frame = av.VideoFrame.from_ndarray(draw(number))
                frame.pts, frame.time_base = number, Fraction(1, 30)
                packets += stream.encode(frame)
            packets += stream.encode()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


@pytest.mark.parametrize("ending", ["ts", "mp4", "mkv"])
@pytest.mark.parametrize(
    "other", [range(60), range(40, 80), range(20), range(0, 60, 20), range(30, 31)]
)
def test_one_of_two_cameras_is_read(tmp_path: Path, ending: str, other: range) -> None:
    """Also where one begins later, ends earlier, or has few pictures."""
    path = write_streams(tmp_path / f"two.{ending}", [range(60), other])
    with av.open(path) as container:
        assert len(container.streams.video) == 2
    if ending == "ts" and len(other) == 1:
        with pytest.raises(VideoError, match=FOLLOW):  # it could be the last one of a part
            VideoReader(path)
        return
    reader = VideoReader(path)
    found = numbers_of(reader.read(range(len(reader))))
    assert found in ([*range(60)], [*other])


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("order", [1, -1])
def test_tracks_one_after_the_other_are_refused(tmp_path: Path, ending: str, order: int) -> None:
    spans = [range(FRAMES), range(FRAMES, 2 * FRAMES)][::order]
    path = write_streams(tmp_path / f"two.{ending}", spans)
    streams = r"[01] \(\d\.\d+ to \d\.\d+ s\) and [01] \(\d\.\d+ to \d\.\d+ s\)"
    with pytest.raises(VideoError, match=rf"^{path}: its video streams {streams} {FOLLOW}"):
        VideoReader(path)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_the_commands_of_the_refusal_mend_it(tmp_path: Path) -> None:
    def run(*arguments: object) -> None:
        command = ["ffmpeg", "-v", "error", *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True)

    one, other = part(tmp_path, 0), part(tmp_path, FRAMES, **OTHER_STREAM)
    path, whole = tmp_path / "joined.ts", tmp_path / "whole.ts"
    path.write_bytes(one + other)
    with pytest.raises(VideoError) as refusal:
        VideoReader(path)
    streams = re.findall(r"-map (0:i:0x\w+)", str(refusal.value))
    assert len(streams) == 2
    for number, data in enumerate((one, other)):
        (tmp_path / f"part{number}.ts").write_bytes(data)
    for source, maps in (("part{}.ts", ["0:v:0"] * 2), ("joined.ts", streams)):
        for number, stream in enumerate(maps):
            target = tmp_path / f"NEW{number}.ts"
            run("-y", "-i", tmp_path / source.format(number), "-map", stream, "-c", "copy", target)
        whole.write_bytes(b"".join((tmp_path / f"NEW{n}.ts").read_bytes() for n in range(2)))
        reader = VideoReader(whole)
        assert numbers_of(reader.read(range(len(reader)))) == [*range(FRAMES)] * 2
