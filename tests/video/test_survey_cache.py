"""A survey is used again only for the file that it was made of, and never gives a wrong frame."""

import base64
import json
import os
import shutil
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numbered import HEVC, VPX, cut_by_stream_copy, numbers_of, write_video

from taghead.errors import VideoError
from taghead.video import Preprocessing, Segment, VideoReader, file_stamp, reader, survey_cache
from taghead.video.frame_times import NO_TIMESTAMP
from taghead.video.survey import Survey
from taghead.video.survey_cache import SurveyCache, num_bytes, survey_from_text, survey_to_text

FASTSTART = {"movflags": "faststart"}


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were just written count as settled; and no survey is known yet."""
    monkeypatch.setattr(file_stamp, "SETTLED_SEC", 0.0)
    monkeypatch.setattr(survey_cache, "_CACHE", SurveyCache())


@pytest.fixture
def surveyed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are surveyed from here on."""
    names: list[str] = []
    make = reader.make_survey
    monkeypatch.setattr(
        reader, "make_survey", lambda path, *_: names.append(path.name) or make(path)
    )
    return names


def same(one: Survey, other: Survey) -> bool:
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Survey)]
    return all(
        np.array_equal(a, b) and a.dtype == b.dtype if isinstance(a, np.ndarray) else a == b
        for a, b in pairs
    )


def cut(h264: Path, folder: Path) -> Path:
    return cut_by_stream_copy(h264, folder / "cut.mp4", 30, 77)


def turned(h264: Path, folder: Path) -> Path:
    setup: Callable[[Any], None] = lambda stream: stream.set_display_rotation(90)  # noqa: E731
    return write_video(folder / "turned.mp4", 20, setup=setup)


FILES: dict[str, Callable[[Path, Path], Path]] = {
    "mp4": lambda h264, folder: shutil.copy(h264, folder / "a.mp4"),
    "mkv": lambda h264, folder: write_video(folder / "a.mkv", 40),
    "webm": lambda h264, folder: write_video(folder / "a.webm", 40, "libvpx-vp9", options=VPX),
    "hevc": lambda h264, folder: write_video(folder / "a.mp4", 40, "libx265", options=HEVC),
    "avi": lambda h264, folder: write_video(folder / "a.avi", 40, "mpeg4", options={"bf": "2"}),
    "ts": lambda h264, folder: write_video(folder / "a.ts", 40),
    "vfr": lambda h264, folder: write_video(folder / "a.mp4", 5, times=[0, 1, 5, 20, 22]),
    "cut": cut,
    "turned": turned,
}


@pytest.mark.parametrize("kind", FILES)
def test_a_reader_with_a_stored_survey_is_the_same(
    kind: str, h264: Path, tmp_path: Path, surveyed: list[str]
) -> None:
    path = Path(FILES[kind](h264, tmp_path))
    first = VideoReader(path)
    text = survey_to_text(first.survey)
    assert text.isascii()
    assert len(text) < 1500
    stored = survey_from_text(text, path)
    assert stored is not None
    assert same(stored, first.survey)
    again = VideoReader(path, survey=stored)
    assert surveyed == [path.name]
    assert np.array_equal(again.times, first.times)
    assert (again.height, again.width, again.fps) == (first.height, first.width, first.fps)
    assert (again.duration, len(again)) == (first.duration, len(first))
    assert np.array_equal(again.read(range(len(again))), first.read(range(len(first))))


def test_frames_without_timestamps_are_stored_as_such(h264: Path) -> None:
    known = VideoReader(h264).survey
    object.__setattr__(known, "decoded", np.array([NO_TIMESTAMP, 7, NO_TIMESTAMP, -3], np.int64))
    stored = survey_from_text(survey_to_text(known), h264)
    assert stored is not None
    assert stored.decoded is not None
    assert stored.decoded.tolist() == [NO_TIMESTAMP, 7, NO_TIMESTAMP, -3]


def rewritten(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())


def replaced(path: Path, other: Path) -> None:
    shutil.copy2(other, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def of_the_same_time(path: Path, other: Path) -> None:
    """Written into the same file, whose time is set back, with bytes added up to the same size."""
    before = path.stat()
    data = other.read_bytes()
    padding = before.st_size - len(data)
    assert padding >= 8
    path.write_bytes(data + padding.to_bytes(4, "big") + b"free" + bytes(padding - 8))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


@pytest.mark.parametrize("change", [rewritten, replaced, of_the_same_time])
def test_a_changed_file_is_surveyed_anew(
    change: Callable[[Path, Path], None], tmp_path: Path, surveyed: list[str]
) -> None:
    path = write_video(tmp_path / "a.mp4", 60, container_options=FASTSTART)
    other = write_video(
        tmp_path / "b.mp4", 20, times=[40 + 3 * i for i in range(20)], options={"crf": "40"}
    )
    known, text = VideoReader(path).survey, survey_to_text(VideoReader(path).survey)
    assert len(survey_cache.open_cached(path)) == 60
    before = len(surveyed)
    assert len(survey_cache.open_cached(path)) == 60
    assert len(surveyed) == before
    change(path, other)
    for stale in (
        VideoReader(path, survey=known),
        survey_cache.open_cached(path),
        survey_cache.open_cached(path, text),
        SurveyCache().open(path, text),
    ):
        assert len(stale) == 20
        assert numbers_of(stale.read(range(20))) == list(range(20))
    assert survey_from_text(text, path) is None
    path.unlink()
    with pytest.raises(VideoError, match="no such file"):
        survey_cache.open_cached(path, text)


def test_a_file_that_was_just_written_is_not_remembered(
    tmp_path: Path, surveyed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its times may not tell it from what is written next."""
    monkeypatch.setattr(file_stamp, "SETTLED_SEC", 2.0)
    path = write_video(tmp_path / "a.mp4", 10)
    for _ in range(2):
        assert len(survey_cache.open_cached(path)) == 10
    assert surveyed == ["a.mp4", "a.mp4"]
    assert survey_to_text(VideoReader(path).survey) == ""


@pytest.mark.parametrize("spoil", ["versions", "size", "time", "digest", "text", "arrays"])
def test_stored_surveys_of_something_else_are_passed_over(h264: Path, spoil: str) -> None:
    text = survey_to_text(VideoReader(h264).survey)
    content = json.loads(zlib.decompress(base64.b64decode(text)))
    if spoil == "versions":
        content["versions"] = "survey 0"
    elif spoil == "arrays":
        del content["arrays"]["shown"], content["values"]["codec"]
    elif spoil != "text":
        content["file"][["size", "time", "digest"].index(spoil)] = 1
    changed = base64.b64encode(zlib.compress(json.dumps(content).encode())).decode()
    changed = text[:-9] if spoil == "text" else changed
    assert survey_from_text(text, h264) is not None
    assert survey_from_text(changed, h264) is None
    assert len(SurveyCache().open(h264, changed)) == 90


def test_damage_that_a_stored_survey_does_not_know_of_is_an_error(tmp_path: Path) -> None:
    """Both ends, size and time are as they were; the timestamps of the packets are checked."""
    size = (240, 320)
    path = write_video(tmp_path / "a.mp4", 240, container_options=FASTSTART, size=size)
    text, before = survey_to_text(VideoReader(path).survey), path.stat()
    data = bytearray(path.read_bytes())
    assert len(data) > 3 * 65536
    middle = len(data) // 2
    data[middle : middle + 4000] = bytes(4000)
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    stale = SurveyCache().open(path, text)
    right = wrong = 0
    for index in range(0, 240, 7):
        try:
            right += numbers_of(stale.read([index])) == [index]
        except VideoError:
            wrong += 1
    assert right + wrong == len(range(0, 240, 7))
    assert wrong > 0


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How files are opened from here on: by libavformat, or by Python."""
    kinds: list[str] = []
    by_av, by_path = av.open, Path.open
    monkeypatch.setattr(av, "open", lambda *a, **k: kinds.append("av") or by_av(*a, **k))
    monkeypatch.setattr(Path, "open", lambda *a, **k: kinds.append("path") or by_path(*a, **k))
    return kinds


def test_an_item_opens_its_file_once(h264: Path, opens: list[str]) -> None:
    preprocessing = Preprocessing(num_frames=4, resize=32, crop=32)
    segments = [Segment(start, start + 1.0) for start in (0.0, 0.5, 1.0, 2.0)]
    without = []
    for segment in segments:
        survey_cache._CACHE = SurveyCache()
        without.append(preprocessing.load(h264, segment=segment))
    assert opens == ["path", "path", "av", "av"] * 4
    opens.clear()
    again = [preprocessing.load(h264, segment=segment) for segment in segments]
    assert opens == ["av"] * 4
    for one, other in zip(without, again, strict=True):
        assert one.equal(other)


def test_segments_of_a_file_whose_frames_only_decoding_tells(
    tmp_path: Path, surveyed: list[str]
) -> None:
    path = write_video(tmp_path / "a.avi", 60, "mpeg4", options={"bf": "2"})
    for start in (0, 20, 40, 59):
        frames = survey_cache.open_cached(path).read(range(start, 60))
        assert numbers_of(frames) == list(range(start, 60))
    assert surveyed == ["a.avi"]


def test_the_cache_is_bounded(tmp_path: Path, surveyed: list[str]) -> None:
    paths = [write_video(tmp_path / f"{i}.mp4", 30) for i in range(4)]
    one = num_bytes(VideoReader(paths[0]).survey)
    cache = SurveyCache(max_bytes=3 * one)
    surveyed.clear()
    for path in [*paths[:3], paths[0], paths[3], paths[0], paths[1]]:
        assert len(cache.open(path)) == 30
        assert len(cache) <= 3
    assert surveyed == ["0.mp4", "1.mp4", "2.mp4", "3.mp4", "1.mp4"]  # 1 was used least recently
    assert len(SurveyCache(max_bytes=one - 1).open(paths[0])) == 30


def test_relative_paths_are_of_the_folder_of_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, frames in (("one", 10), ("two", 12)):
        (tmp_path / name).mkdir()
        write_video(tmp_path / name / "a.mp4", frames)
        monkeypatch.chdir(tmp_path / name)
        assert len(survey_cache.open_cached("a.mp4")) == frames


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        ("arrays", "timestamps", [0, 1]),  # fewer than are shown
        ("arrays", "timestamps", [0, -1] * 45),  # they fall
        ("arrays", "shown", [0] * 90),
        ("arrays", "seek_points", [0, 1, 2]),
        ("arrays", "timestamps", [10**30]),
        ("arrays", "decoded", []),
        ("values", "height", 0),
        ("values", "width", "160"),
        ("values", "stream", -1),
        ("values", "fps", float("nan")),
        ("values", "codec", None),
        ("values", "more", 1),
        ("", "time_base", [1, 0]),
        ("", "time_base", [-1, 30]),
        ("", "orientation", [1, 0, 0]),
        ("", "orientation", 3),
    ],
)
def test_stored_surveys_of_other_values_are_passed_over(
    h264: Path, place: str, name: str, value: object
) -> None:
    content = json.loads(
        zlib.decompress(base64.b64decode(survey_to_text(VideoReader(h264).survey)))
    )
    (content[place] if place else content)[name] = value
    text = base64.b64encode(zlib.compress(json.dumps(content).encode())).decode()
    assert survey_from_text(text, h264) is None


def test_a_stored_survey_that_is_a_bomb_is_passed_over(h264: Path) -> None:
    """A text of some hundred kilobytes holds half a gigabyte."""
    packer, parts = zlib.compressobj(9), []
    for _ in range(512):
        parts.append(packer.compress(b" " * 2**20))
    text = base64.b64encode(b"".join([*parts, packer.flush()])).decode()
    assert len(text) < 800_000
    tracemalloc.start()
    try:
        assert survey_from_text(text, h264) is None
        assert tracemalloc.get_traced_memory()[1] < 3 * survey_cache.MAX_BYTES
    finally:
        tracemalloc.stop()


def test_no_frame_is_given_for_another(h264: Path) -> None:
    """A survey that knows of a frame more than the file has, where decoding starts by a seek."""
    known = VideoReader(h264).survey
    between = int(known.timestamps[50:52].mean())
    more = replace(
        known,
        timestamps=np.insert(known.timestamps, 51, between),
        shown=np.insert(known.shown, 51, True),
    )
    reader = VideoReader(h264, survey=more)
    assert len(reader) == 91
    assert numbers_of(reader.read([50])) == [50]
    with pytest.raises(VideoError, match=r"damaged: frame 51 cannot be decoded"):
        next(reader.read_each([51, 52]))


def test_fewer_frames_than_packets_show_are_damage(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", 20, "mpeg4")
    known = VideoReader(path).survey
    assert len(VideoReader(path, survey=replace(known, min_frames=20))) == 20
    with pytest.raises(VideoError, match=rf"^{path}: damaged: only 20 of 21 frames$"):
        VideoReader(path, survey=replace(known, min_frames=21))
