import os
import time
from pathlib import Path

import pytest
from numbered import packets_of, write_video

from taghead.errors import VideoError
from taghead.video import VideoReader
from taghead.video.containers import check_complete

FILES = ["a.mp4", "a.mkv", "a.avi"]


@pytest.fixture(scope="module", params=FILES)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("containers") / request.param
    return write_video(path, 40, container_options={"movflags": "faststart"})


def test_a_whole_file_passes(whole: Path) -> None:
    check_complete(whole)


@pytest.mark.parametrize("where", ["between packets", "in a packet", "in the last packet"])
def test_a_truncated_file_is_refused(whole: Path, tmp_path: Path, where: str) -> None:
    packet = packets_of(whole)[-1 if "last" in where else 25]
    end = packet.pos + (0 if where == "between packets" else 9)
    path = tmp_path / whole.name
    path.write_bytes(whole.read_bytes()[:end])
    with pytest.raises(VideoError, match=rf"^{path}: truncated: it has {end} of \d+ bytes$"):
        VideoReader(path)


def test_rubbish_behind_the_video_is_passed_over(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / whole.name
    path.write_bytes(whole.read_bytes() + bytes(100) + b"rubbish" * 20)
    check_complete(path)


def test_a_live_recording_states_no_length(tmp_path: Path) -> None:
    path = write_video(tmp_path / "live.mkv", 20, container_options={"live": "1"})
    check_complete(path)
    assert len(VideoReader(path)) == 20


@pytest.mark.parametrize(("name", "codec"), [("a.webm", "libvpx"), ("a.avi", "libx264")])
def test_damage_that_the_demuxer_passes_over(tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(tmp_path / name, 60, codec)
    data = bytearray(path.read_bytes())
    start = packets_of(path)[30].pos
    data[start - 8 : start + 8] = b"\xff\x00" * 8
    path.write_bytes(data)
    assert len(packets_of(path)) < 60
    with pytest.raises(VideoError, match=rf"^{path}: damaged: the container breaks at byte \d+$"):
        VideoReader(path)


def nested(depth: int, whole: bytes) -> bytes:
    """An AVI file with a list in a list in a list, before what it has."""
    lists = b""
    for _ in range(depth):
        lists = b"LIST" + (4 + len(lists)).to_bytes(4, "little") + b"rec " + lists
    body = b"AVI " + lists + whole[12:]
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def test_lists_in_lists(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.avi", 20, "mpeg4").read_bytes()
    path = tmp_path / "nested.avi"
    path.write_bytes(nested(3, whole))
    assert len(VideoReader(path)) == 20
    for depth in (9, 500, 20_000):
        path.write_bytes(nested(depth, whole))
        start = time.perf_counter()
        with pytest.raises(VideoError, match=rf"^{path}: damaged: the container breaks at byte"):
            VideoReader(path)
        assert time.perf_counter() - start < 1


def test_a_file_that_is_cut_while_it_is_read_is_an_error(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A memory map of it would end the process."""
    path = tmp_path / whole.name
    path.write_bytes(whole.read_bytes())
    stat = os.fstat

    def cut(descriptor: int) -> os.stat_result:
        found = stat(descriptor)
        os.truncate(path, 600)
        return found

    monkeypatch.setattr(os, "fstat", cut)
    with pytest.raises(VideoError, match=r"became shorter while it was read$"):
        check_complete(path)


def test_an_empty_file_states_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    check_complete(tmp_path / "empty.mp4")
