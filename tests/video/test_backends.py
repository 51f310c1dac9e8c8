"""One numbering and the same pictures from every backend, or a refusal that says why."""

import pickle
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from installed import has_torchcodec
from numbered import H264, HEVC, cut_by_stream_copy, number_of, numbers_of, write_video

from taghead.errors import VideoError
from taghead.video import VideoReader, read_frames
from taghead.video.decode.pyav import PyAVBackend
from taghead.video.survey import survey

needs_torchcodec = pytest.mark.skipif(
    not has_torchcodec(), reason="torchcodec, or FFmpeg's libraries for it, are not installed"
)
OPEN = {**H264, "x264-params": "open-gop=1:keyint=12:min-keyint=12"}
OTHERS = ["decord", pytest.param("torchcodec", marks=needs_torchcodec)]


@pytest.mark.parametrize("backend", OTHERS)
def test_pictures_agree_to_the_bit(h264: Path, backend: str) -> None:
    wanted = [5, 77, 5, 0, 89, 31]
    reader = VideoReader(h264, backend=backend)
    assert (reader.backend, reader.reason) == (backend, "it was asked for")
    assert np.array_equal(reader.read(wanted), read_frames(h264, wanted))
    assert reader.read([]).shape == (0, 120, 160, 3)
    half = reader.read([3, 60, 3], size=(60, 80)).astype(int)
    assert numbers_of(half) == [3, 60, 3]
    assert np.abs(half - VideoReader(h264).read([3, 60, 3], size=(60, 80))).mean() < 4


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("colours", [{"color_range": 2}, {"colorspace": 1}, {"colorspace": 9}])
def test_colours_agree(tmp_path: Path, backend: str, colours: dict) -> None:
    def tag(stream: av.VideoStream) -> None:
        for name, value in colours.items():
            setattr(stream.codec_context, name, value)

    path = write_video(tmp_path / "a.mp4", 3, setup=tag)
    with av.open(path) as container:
        (name, value), *_ = colours.items()
        assert getattr(container.streams.video[0].codec_context, name) == value
    ours, theirs = (read_frames(path, [0, 2], one).astype(int) for one in ("pyav", backend))
    assert np.abs(ours - theirs).max() <= 4


def test_what_auto_takes(h264: Path) -> None:
    reader = VideoReader(h264)
    assert (reader.backend, reader.reason) == ("pyav", "it is right on every file, and as fast")
    assert VideoReader(h264, backend="pyav").reason == "it was asked for"
    with pytest.raises(ValueError, match=r"backend must be one of .*'decord'.*\(got 'opencv'\)"):
        VideoReader(h264, backend="opencv")


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cut", r"it was cut without encoding it again"),
        ("avi", r"the packets of its container \(avi\) need not be whole frames"),
        ("mpeg4", r"its codec \(mpeg4\) may hide frames"),
        ("hevc", r"its codec is hevc, and only h264, vp8, vp9 are proved"),
        ("open GOPs", r"its GOPs are open: pictures before a keyframe may refer past it"),
        ("gradual refresh", r"its GOPs are open"),
        ("turned", r"it is turned by metadata"),
        ("ten bits", r"its pixels are yuv420p10le, and only 8-bit 4:2:0 is proved"),
    ],
)
def test_refusals(h264: Path, tmp_path: Path, kind: str, reason: str, backend: str) -> None:
    path = tmp_path / ("a.avi" if kind == "avi" else "a.mp4")
    if kind == "cut":
        cut_by_stream_copy(h264, path, 30, 77)
    elif kind in ("avi", "mpeg4"):
        write_video(path, 5, "mpeg4")
    elif kind == "hevc":
        write_video(path, 5, "libx265", options=HEVC)
    elif kind == "open GOPs":
        write_video(path, 50, options=OPEN)
    elif kind == "gradual refresh":
        write_video(path, 30, options={**H264, "bf": "0", "x264-params": "intra-refresh=1"})
    elif kind == "turned":
        write_video(path, 5, setup=lambda stream: stream.set_display_rotation(90))
    else:
        write_video(path, 5, pix_fmt="yuv420p10le")
    with pytest.raises(VideoError, match=rf"^{path}: {backend} is not proved.*{reason}.*use pyav"):
        VideoReader(path, backend=backend)
    if kind != "turned":  # so are its blocks
        assert numbers_of(read_frames(path, [3])) == [33 if kind == "cut" else 3]


def test_decord_never_reads_a_file_that_it_counts_otherwise(
    h264: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import decord

    def hang(*arguments: object) -> None:
        raise AssertionError("decord's get_batch was called")

    reader = VideoReader(h264, backend="decord")
    monkeypatch.setattr(decord.VideoReader, "__len__", lambda self: 120)
    monkeypatch.setattr(decord.VideoReader, "get_batch", hang)
    with pytest.raises(VideoError, match=r"decord counts 120 frames, its packets 90: use pyav"):
        reader.read([0])


def test_a_container_that_states_too_many_frames(h264: Path, tmp_path: Path) -> None:
    data = bytearray(h264.read_bytes())
    at = data.index(b"stts") + 8  # number of entries, then (frames, duration) of each
    assert data[at : at + 8] == (1).to_bytes(4, "big") + (90).to_bytes(4, "big")
    data[at + 4 : at + 8] = (120).to_bytes(4, "big")
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    for backend in ("pyav", "decord"):
        try:
            frames = read_frames(path, range(90), backend)
        except VideoError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017 - either is right
        else:
            assert numbers_of(frames) == list(range(90))


def test_torchcodec_that_cannot_be_imported(h264: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(VideoError, match=r"needs `pip install taghead\[torchcodec\]` and the sha"):
        VideoReader(h264, backend="torchcodec")


def test_decord_with_another_bridge(h264: Path) -> None:
    import decord

    decord.bridge.set_bridge("torch")
    try:
        frames = read_frames(h264, [8, 2], "decord")
    finally:
        decord.bridge.reset_bridge()
    assert isinstance(frames, np.ndarray)
    assert numbers_of(frames) == [8, 2]


def test_awkward_names(h264: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the working folder they are relative: nothing stands before what looks like a protocol."""
    monkeypatch.chdir(tmp_path)
    for name in ("pipe:1 %03d [x].mp4", "größe ' \".mp4", "http:a.mp4", "no extension"):
        Path(name).write_bytes(h264.read_bytes())
        for path in (Path(name), tmp_path / name):
            assert numbers_of(read_frames(path, [5], "decord")) == [5]


class Clips(torch.utils.data.Dataset):
    def __init__(self, readers: list[VideoReader]) -> None:
        self.readers = readers

    def __len__(self) -> int:
        return len(self.readers)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.readers[index].read([index, 80])


def test_pickled_readers_in_data_loading_processes(h264: Path) -> None:
    readers = [VideoReader(h264, backend=name) for name in ("pyav", "decord") * 3]
    assert [len(reader.read([4])) for reader in readers]  # the libraries are loaded before the fork
    readers = pickle.loads(pickle.dumps(readers))
    loader = torch.utils.data.DataLoader(
        Clips(readers), batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    assert [numbers_of(frames.numpy()) for frames in loader] == [[i, 80] for i in range(6)]


@pytest.fixture(scope="module")
def long(folder: Path) -> Path:
    """600 frames in 50 closed GOPs."""
    return write_video(folder / "long.mp4", 600)


@pytest.fixture(scope="module")
def long_open(folder: Path) -> Path:
    """600 frames in open GOPs, of which one in 10 is closed."""
    options = {**H264, "x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3"}
    return write_video(folder / "long_open.mp4", 600, options=options)


class Decoded:
    """Counts what a decoder is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from taghead.video.decode import pyav

        self.packets, self.from_start, without_discard = 0, 0, pyav.without_discard

        def count(packet: av.Packet) -> av.Packet:
            self.packets += 1
            return without_discard(packet)

        start = PyAVBackend._from_start

        def count_starts(backend: PyAVBackend):
            self.from_start += 1
            return start(backend)

        monkeypatch.setattr(pyav, "without_discard", count)
        monkeypatch.setattr(PyAVBackend, "_from_start", count_starts)


@pytest.mark.parametrize("name", ["long", "long_open"])
def test_seeking(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = request.getfixturevalue(name)
    everything = VideoReader(path).read(range(600))
    assert numbers_of(everything) == list(range(600))
    decoded, reader = Decoded(monkeypatch), VideoReader(path)
    rng = np.random.default_rng(0)
    for wanted in ([599], [300], [12], [11], [590, 3, 300, 3], *rng.integers(0, 600, (12, 7))):
        decoded.packets = 0
        assert np.array_equal(reader.read(wanted), everything[wanted])
        assert decoded.packets <= 24 * len(wanted)
    assert decoded.from_start == 0


def test_pictures_that_nobody_needs_are_left_out(
    h264: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = VideoReader(h264).read(range(90))
    decoded = Decoded(monkeypatch)
    wanted = np.arange(0, 90, 10)
    assert np.array_equal(VideoReader(h264).read(wanted), everything[wanted])
    assert decoded.packets < 70
    assert decoded.from_start == 0


def test_a_keyframe_that_begins_a_gradual_refresh_is_no_start(tmp_path: Path) -> None:
    options = {**H264, "bf": "0", "x264-params": "intra-refresh=1:keyint=12"}
    path = write_video(tmp_path / "refresh.mp4", 60, options=options)
    assert len(survey(path).seek_points) == 1
    everything = VideoReader(path).read(range(60))
    assert np.array_equal(VideoReader(path).read([40, 59]), everything[[40, 59]])


def test_a_seek_that_goes_astray(long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a wrong index leads to, frames are right."""
    reader = VideoReader(long)
    reader._backend.survey.seek_points[:, 1] += 20_000
    decoded = Decoded(monkeypatch)
    assert [number_of(reader.read([n])[0]) for n in (599, 300, 40)] == [599, 300, 40]
    assert decoded.from_start > 0


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads(long: Path, threads: int) -> None:
    wanted = [590, 3, 300, 301, 340]
    assert numbers_of(VideoReader(long, threads=threads).read(wanted)) == wanted


def test_threads_by_size(h264: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(16), raising=False)
    large = write_video(tmp_path / "large.mp4", 2, size=(720, 1280))
    assert VideoReader(h264).threads == 1
    assert VideoReader(large).threads == 4
    assert VideoReader(large, threads=3).threads == 3
    monkeypatch.setattr("multiprocessing.parent_process", lambda: object())
    assert VideoReader(large).threads == 1


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_memory_stays_flat(tmp_path: Path, backend: str) -> None:
    """Of more opens, `benchmarks/decode.py --opens 5000` tells."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("the system does not tell how much memory a process has")
    path = write_video(tmp_path / "a.mp4", 10, size=(48, 64))
    marks = []
    for _ in range(3):
        for _ in range(100):
            VideoReader(path, backend=backend).read([9, 0])
        marks.append(int(statm.read_text().split()[1]) * 4096 / 2**20)
    assert marks[2] - marks[1] < 4, marks  # MiB


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "no edit list.mp4"])
def test_time_0_and_rate_of_a_file_longer_than_what_is_probed(tmp_path: Path, name: str) -> None:
    options = {"use_editlist": "0"} if "no edit" in name else {}
    path = write_video(tmp_path / name, 240, size=(48, 64), container_options=options)
    reader = VideoReader(path)
    assert np.allclose(reader.times, np.arange(240) / 30, atol=1e-3)
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert reader.fps == stream.average_rate
        assert survey(path).start_time == stream.start_time * stream.time_base
