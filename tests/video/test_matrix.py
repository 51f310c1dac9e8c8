"""Frames by random numbers from files of many kinds: the one asked for, or a refusal."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from installed import BACKENDS
from numbered import (
    H264,
    HEVC,
    VPX,
    cut_by_stream_copy,
    number_of,
    numbers_of,
    packets_of,
    remuxed,
    write_video,
)

from taghead.errors import VideoError
from taghead.video import Segment, VideoReader
from taghead.video.survey import survey

FRAMES, READS, INDICES = 72, 20, 22  # of a file; of a file by each backend; of a read
TIMES = np.cumsum(np.random.default_rng(1).integers(1, 9, FRAMES)).tolist()  # thirtieths
FROM_0 = [time - TIMES[0] for time in TIMES]
# More than a frame in a millisecond, the unit of Matroska: neighbours have one timestamp.
TIGHT_BASE = Fraction(1, 9000)
TIGHT = np.cumsum(np.random.default_rng(2).integers(1, 25, FRAMES)).tolist()
OPEN = {**H264, "bf": "2", "x264-params": "open-gop=1"}
CLOSED_HEVC = {
    "preset": "ultrafast",
    "x265-params": "keyint=12:min-keyint=12:bframes=3:open-gop=0:log-level=none",
}
AV1 = {"preset": "10", "crf": "20", "svtav1-params": "keyint=24"}
AVI = {"bf": "2", "g": "12", "b": "1500k"}
KINDS: dict[str, tuple[str, dict]] = {
    "closed GOPs.mp4": ("libx264", {"options": H264}),
    "closed GOPs.mkv": ("libx264", {"options": H264}),
    "open GOPs.mp4": ("libx264", {"options": OPEN}),
    "open GOPs.mkv": ("libx264", {"options": OPEN}),
    "no B-frames.mp4": ("libx264", {"options": {**H264, "bf": "0"}}),
    "variable rate.mp4": ("libx264", {"options": H264, "times": TIMES}),
    "variable rate.mkv": ("libx264", {"options": H264, "times": TIMES}),
    "10 bits.mp4": ("libx264", {"options": H264, "pix_fmt": "yuv420p10le"}),
    "h264.avi": ("libx264", {"options": H264}),
    "open hevc.mp4": ("libx265", {"options": HEVC}),
    "open hevc.mkv": ("libx265", {"options": HEVC}),
    "closed hevc.mp4": ("libx265", {"options": CLOSED_HEVC}),
    "10 bit hevc.mp4": ("libx265", {"options": HEVC, "pix_fmt": "yuv420p10le"}),
    "variable hevc.mp4": ("libx265", {"options": HEVC, "times": TIMES}),
    "vp8.webm": ("libvpx", {"options": {**VPX, "g": "15"}}),
    "vp9.webm": ("libvpx-vp9", {"options": {**VPX, "g": "15"}}),
    "vp9 with hidden frames.webm": (
        "libvpx-vp9",
        {"options": {**VPX, "g": "30", "auto-alt-ref": "1", "lag-in-frames": "16"}},
    ),
    "variable vp9.mkv": ("libvpx-vp9", {"options": VPX, "times": TIMES}),
    "vp9.mp4": ("libvpx-vp9", {"options": VPX}),
    "av1.mp4": ("libsvtav1", {"options": AV1}),
    "av1.mkv": ("libsvtav1", {"options": AV1}),
    "variable rate h264.avi": ("libx264", {"options": H264, "times": FROM_0}),
    "variable rate mpeg4.avi": ("mpeg4", {"options": AVI, "times": FROM_0}),
    "variable rate mpeg4 without B-frames.avi": (
        "mpeg4",
        {"options": {**AVI, "bf": "0"}, "times": FROM_0},
    ),
    "h264.ts": ("libx264", {"options": H264}),
    "variable rate h264.ts": ("libx264", {"options": H264, "times": TIMES}),
    "mpeg2.mpg": ("mpeg2video", {"options": AVI}),
    "variable rate h264.flv": ("libx264", {"options": H264, "times": TIMES}),
    "repeated times.mkv": ("libx264", {"options": H264, "times": TIGHT, "time_base": TIGHT_BASE}),
    "repeated times.webm": (
        "libvpx-vp9",
        {"options": VPX, "times": TIGHT, "time_base": TIGHT_BASE},
    ),
    "mpeg4 with B-frames.avi": ("mpeg4", {"options": AVI}),
    "mpeg4.avi": ("mpeg4", {"options": {**AVI, "bf": "0"}}),
    "mpeg4.mp4": ("mpeg4", {"options": AVI}),
    "turned by 90.mp4": (
        "libx264",
        {"options": H264, "setup": lambda stream: stream.set_display_rotation(90)},
    ),
    "turned by 180.mp4": (
        "libx264",
        {"options": H264, "setup": lambda stream: stream.set_display_rotation(180)},
    ),
    "one frame.mp4": ("libx264", {"options": H264}),
    "one frame.webm": ("libvpx", {"options": VPX}),
    "one frame.avi": ("mpeg4", {"options": AVI}),
}
COPIES = {  # the file whose packets it has
    "remuxed h264.avi": "closed GOPs.mp4",
    "remuxed mpeg4.avi": "mpeg4.mp4",
}
CUTS = {  # the file it is cut from, and its extension
    "cut.mp4": "closed GOPs.mp4",
    "cut with open GOPs.mp4": "open GOPs.mp4",
    "cut.mkv": "closed GOPs.mkv",
    "cut hevc.mp4": "open hevc.mp4",
}
NOT_PROVED = ("open", "10 bit", "hevc", "av1", "avi", "mpeg", ".ts", ".flv", "turned", "cut")
NOT_PROVED += ("repeated",)


@dataclass(frozen=True)
class Case:
    """A file, and the numbers drawn into its frames as they are shown."""

    path: Path
    numbers: list[int]
    quarter_turns: int = 0


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    folder = tmp_path_factory.mktemp("matrix")
    cases = {}
    for name, (codec, arguments) in KINDS.items():
        frames = 1 if "one frame" in name else FRAMES
        path = write_video(folder / name, frames, codec, **arguments)
        turns = {"turned by 90.mp4": 1, "turned by 180.mp4": 2}.get(name, 0)
        cases[name] = Case(path, list(range(frames)), turns)
    for name, source in COPIES.items():
        cases[name] = Case(remuxed(folder / source, folder / name), list(range(FRAMES)))
    for name, source in CUTS.items():
        path = cut_by_stream_copy(folder / source, folder / name, 30, FRAMES)
        first = 24 if name == "cut.mkv" else 30  # nothing in it hides the pre-roll
        cases[name] = Case(path, list(range(first, FRAMES)))
    return cases


def _read_at_random(case: Case, backend: str, seed: int) -> tuple[int, list[tuple]]:
    """How many frames were read, and the file, index and number of those that are wrong."""
    rng, asked, wrong = np.random.default_rng(seed), 0, []
    reader = VideoReader(case.path, backend=backend)
    assert len(reader) == len(case.numbers)
    for _ in range(READS):
        wanted = rng.integers(len(reader), size=rng.integers(1, 2 * INDICES))
        pictures = np.rot90(reader.read(wanted), -case.quarter_turns, (1, 2))
        asked += len(wanted)
        for index, picture in zip(wanted, pictures, strict=True):
            if number_of(picture) != case.numbers[index]:
                wrong.append((case.path.name, index, number_of(picture)))
    return asked, wrong


@pytest.mark.parametrize("backend", BACKENDS)
def test_random_frames(cases: dict[str, Case], backend: str, tally: Callable[[str], None]) -> None:
    asked, wrong, refused = 0, [], []
    for number, (name, case) in enumerate(cases.items()):
        try:
            asked_here, wrong_here = _read_at_random(case, backend, number)
        except VideoError as error:
            refused.append(name)
            assert backend in str(error), error  # noqa: PT017 - a refusal is one of two good ends
            continue
        asked += asked_here
        wrong += wrong_here
    files = len(cases) - len(refused)
    tally(
        f"{asked} random frames of {files} files, {backend}: {len(wrong)} wrong; "
        f"{len(refused)} files refused"
    )
    assert not wrong
    if backend == "pyav":
        assert not refused
        assert asked >= 10_000
    else:
        assert set(refused) - {"one frame.webm"} == {  # decord finds no length in it
            name for name in cases if any(part in name for part in NOT_PROVED)
        }


@pytest.mark.parametrize("name", [*KINDS, *COPIES, *CUTS])
def test_pictures_are_those_of_decoding_all(cases: dict[str, Case], name: str) -> None:
    """To the bit, whatever is jumped over or left out."""
    reader = VideoReader(cases[name].path)
    everything = reader.read(range(len(reader)))
    rng = np.random.default_rng(0)
    for size in (1, 2, 5):
        wanted = rng.integers(len(reader), size=size)
        assert np.array_equal(reader.read(wanted), everything[wanted])


def test_the_files_have_what_they_are_to_test(cases: dict[str, Case]) -> None:
    assert packets_of(cases["cut.mp4"].path)[0].is_discard
    assert packets_of(cases["cut with open GOPs.mp4"].path)[0].is_discard
    assert numbers_of(VideoReader(cases["cut.mkv"].path).read([0]))[0] < 30
    for name in ("repeated times.mkv", "repeated times.webm"):
        assert (np.diff(VideoReader(cases[name].path).times) == 0).sum() > 5


@pytest.mark.parametrize("name", [*KINDS, *COPIES, *CUTS])
def test_time_0_and_rate_are_those_of_a_file_probed_in_full(
    cases: dict[str, Case], name: str
) -> None:
    known = survey(cases[name].path)
    with av.open(cases[name].path) as container:
        stream = container.streams.video[0]
        assert known.fps == float(stream.average_rate or stream.guessed_rate)
        assert known.start_time == stream.start_time * stream.time_base


def _seconds(name: str, case: Case) -> np.ndarray:
    """When frames were to be shown, as they were encoded, from the first one on."""
    arguments = KINDS.get(name, ("", {}))[1]
    unit = float(arguments.get("time_base", Fraction(1, 30)))
    times = np.array(arguments.get("times", range(FRAMES)))[case.numbers] * unit
    return times - times[0]


def _unknown(name: str) -> int:
    """Number of frames at the end whose times the file does not state."""
    is_reordered = "variable" in name and "without B-frames" not in name
    return 3 if name.endswith(".avi") and is_reordered else 0


@pytest.mark.parametrize("name", [*KINDS, *COPIES, *CUTS])
def test_times_are_those_that_were_encoded(cases: dict[str, Case], name: str) -> None:
    """To a millisecond; AVI does not state when the last frames of a variable rate are shown."""
    reader = VideoReader(cases[name].path)
    expected = _seconds(name, cases[name])
    known = slice(len(expected) - _unknown(name))
    assert np.abs(reader.times - expected)[known].max() <= 0.001
    assert (np.diff(reader.times) >= 0).all()
    assert reader.times[-1] < reader.duration <= expected[-1] + 9.1 / 30


@pytest.mark.parametrize("name", [*KINDS, *COPIES, *CUTS])
def test_times_are_those_of_a_player(cases: dict[str, Case], name: str) -> None:
    """A player takes presentation times, and in AVI the decode times as frames come out."""
    is_avi = name.endswith(".avi")
    with av.open(cases[name].path) as container:
        frames = list(container.decode(video=0))
        unit = float(container.streams.video[0].time_base)
        stated = container.duration / av.time_base
    ticks = [frame.dts if is_avi else frame.pts for frame in frames]
    known = [index for index, tick in enumerate(ticks) if tick is not None]
    shown = np.array([ticks[index] for index in known]) * unit
    times = VideoReader(cases[name].path).times
    assert len(times) == len(frames)
    assert len(known) >= len(frames) - 8
    if known:
        differences = times[known] - shown
        assert np.ptp(differences) <= 0.001
    if is_avi:  # its chunks, the empty ones too
        assert VideoReader(cases[name].path).duration == pytest.approx(stated, abs=0.001)


@pytest.mark.parametrize("name", [*KINDS, *COPIES, *CUTS])
def test_segments_in_seconds_have_the_frames_that_begin_in_them(
    cases: dict[str, Case], name: str
) -> None:
    """Edges lie 1.5 ms beside the beginning of a frame."""
    reader, expected = VideoReader(cases[name].path), _seconds(name, cases[name])
    known = len(expected) - _unknown(name)
    rng, asked = np.random.default_rng(3), 0
    for _ in range(40):
        first, last = sorted(rng.integers(0, known, 2).tolist())
        start, end = max(0.0, float(expected[first]) - 0.0015), float(expected[last]) + 0.0015
        nearest = min(np.abs(expected - edge).min() for edge in (start, end))
        if start > 0 and nearest < 0.001:
            continue  # within what its container rounds
        wanted = [index for index, time in enumerate(expected) if start <= time < end]
        assert list(Segment(start, end).frames(reader)) == wanted
        asked += 1
    assert asked > 0


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
@pytest.mark.parametrize("name", [*KINDS, *COPIES, *CUTS])
def test_times_are_those_of_ffprobe(cases: dict[str, Case], name: str) -> None:
    """Another build of FFmpeg, by its own program; a frame may have no time in AVI's end."""
    clock = "pkt_dts_time" if name.endswith(".avi") else "best_effort_timestamp_time"
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-of", "json", "-show_entries"]
    command += [f"frame={clock}", str(cases[name].path)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["frames"]
    times = VideoReader(cases[name].path).times
    assert len(found) == len(times)
    known = [index for index, frame in enumerate(found) if clock in frame]
    if known:
        shown = np.array([float(found[index][clock]) for index in known])
        assert np.ptp(times[known] - shown) <= 0.001
