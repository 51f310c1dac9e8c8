from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numbered import H264, VPX, cut_by_stream_copy, numbers_of, write_video

from taghead.errors import VideoError
from taghead.video import Segment, VideoReader

TIMES = [0, 1, 5, 6, 7, 20, 21, 22, 50, 51, 52, 53, 54, 90, 91]  # thirtieths of a second


@pytest.fixture(scope="module")
def vfr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("vfr") / "vfr.mp4", 15, times=TIMES)


@pytest.mark.parametrize(
    ("name", "codec", "options", "tolerance"),
    [
        ("a.mp4", "libx264", H264, 0),
        ("a.mkv", "libx264", H264, 0.0006),  # whole milliseconds
        ("a.webm", "libvpx-vp9", VPX, 0.0006),
        ("a.avi", "mpeg4", {"bf": "2"}, 1e-9),
    ],
)
def test_times(tmp_path: Path, name: str, codec: str, options: dict, tolerance: float) -> None:
    reader = VideoReader(write_video(tmp_path / name, 40, codec, options=options))
    assert reader.times.dtype == np.float64
    assert np.abs(reader.times - np.arange(40) / 30).max() <= tolerance
    assert reader.duration == pytest.approx(40 / 30, abs=0.002)


def test_times_of_variable_frame_rate(vfr: Path) -> None:
    reader = VideoReader(vfr)
    assert reader.times.tolist() == [time / 30 for time in TIMES]
    # from the start of frame 20/30 to before that of 51/30
    between = reader.frames_between(20 / 30, 51 / 30)
    assert [TIMES[i] for i in between] == [20, 21, 22, 50]
    assert numbers_of(reader.read(between)) == [5, 6, 7, 8]


def test_times_of_a_cut_start_at_the_cut(h264: Path, tmp_path: Path) -> None:
    reader = VideoReader(cut_by_stream_copy(h264, tmp_path / "cut.mp4", 30, 77))
    assert reader.times.tolist() == (np.arange(47) / 30).tolist()
    assert numbers_of(reader.read(reader.frames_between(0.5, 0.6))) == [45, 46, 47]


@pytest.mark.parametrize("sound_first", [True, False])
def test_time_0_is_that_of_the_first_stream(tmp_path: Path, sound_first: bool) -> None:
    """A player shows the first frame half a second after the sound has begun."""
    source = write_video(tmp_path / "source.mp4", 30)
    path = tmp_path / "sound.mkv"
    with av.open(source) as reader, av.open(path, "w") as writer:
        video = writer.add_stream_from_template(reader.streams.video[0])
        sound = writer.add_stream("pcm_s16le", rate=16000) if sound_first else None
        if sound:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
            writer.mux(sound.encode(frame))
        for packet in reader.demux(video=0):
            if packet.size:
                half = int(1 / (2 * packet.time_base))
                packet.pts, packet.dts, packet.stream = packet.pts + half, packet.dts + half, video
                writer.mux(packet)
    times = VideoReader(path).times
    assert times[0] == pytest.approx(0.5 if sound_first else 0)
    assert np.diff(times) == pytest.approx(1 / 30, abs=0.0011)


@pytest.mark.parametrize("span", [(3.1, None), (100, 101), (1.81, 2.99), (0.01, 0.02), (2, 1)])
def test_no_frame_between(vfr: Path, span: tuple) -> None:
    end = "the end" if span[1] is None else f"{span[1]} s"
    message = rf"^{vfr}: no frame begins from {span[0]} s to {end} \(it lasts 3\.\d+ s\)$"
    with pytest.raises(VideoError, match=message):
        VideoReader(vfr).frames_between(*span)


@pytest.mark.parametrize(
    ("segment", "numbers"),
    [
        (Segment(0), range(15)),
        (Segment(0, 0.2), [0, 1, 2]),
        (Segment(3), [13, 14]),
        (Segment(1.7, 3.5), [9, 10, 11, 12, 13, 14]),  # an end rounded up
        (Segment(4, 6, "frame"), [4, 5]),
        (Segment(13.0, 15.0, "frame"), [13, 14]),
        (Segment(12, unit="frame"), [12, 13, 14]),
    ],
)
def test_segments(vfr: Path, segment: Segment, numbers: list[int]) -> None:
    reader = VideoReader(vfr)
    assert list(segment.frames(reader)) == list(numbers)
    assert numbers_of(reader.read(segment.frames(reader))) == list(numbers)


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (Segment(1, 9.5), r"segment 1\.\.9\.5 sec is past the end \(it has 15 frames, 3\.\d+ s\)"),
        (Segment(9.5), r"no frame begins from 9\.5 s to the end \(it lasts 3\.\d+ s\)"),
        (Segment(14, 16, "frame"), r"segment 14\.\.16 frame is past the end \(it has 15 frames"),
        (Segment(15, unit="frame"), r"segment 15\.\. frame is past the end \(it has 15 frames"),
    ],
)
def test_segments_past_the_end(vfr: Path, segment: Segment, message: str) -> None:
    with pytest.raises(VideoError, match=rf"^{vfr}: {message}"):
        segment.frames(VideoReader(vfr))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-0.1,), r"start must be 0 or more \(got -0\.1\)"),
        ((float("nan"),), r"start must be 0 or more \(got nan\)"),
        ((2, 2), r"end must be greater than start = 2 \(got 2\)"),
        ((2, float("inf")), r"end must be greater than start = 2 \(got inf\)"),
        ((1.5, 3, "frame"), r"start and end must be whole frames \(got 1\.5\.\.3 frame\)"),
        ((1, 2, "ms"), r"unit must be sec or frame \(got 'ms'\)"),
    ],
)
def test_arguments_are_checked(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Segment(*arguments)
