import os
import pickle
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numbered import (
    H264,
    HEVC,
    VPX,
    cut_by_stream_copy,
    draw,
    number_of,
    numbers_of,
    packets_of,
    rewrite_packets,
    write_video,
)
from PIL import Image

from taghead.errors import DataError, VideoError
from taghead.video import Limits, VideoReader, read_frames

AVI = {"bf": "2", "g": "12", "b": "1500k"}
ENCODINGS = {
    "h264.mp4": ("libx264", H264),
    "h264.mkv": ("libx264", H264),
    "h264.avi": ("libx264", H264),
    "h264.ts": ("libx264", H264),
    "hevc.mp4": ("libx265", HEVC),
    "av1.mp4": ("libsvtav1", {"preset": "10", "crf": "20"}),
    "vp8.webm": ("libvpx", VPX),
    "vp9.webm": ("libvpx-vp9", VPX),
    "mpeg4.avi": ("mpeg4", AVI),
    "mpeg4.mp4": ("mpeg4", AVI),
    "mpeg2.mpg": ("mpeg2video", AVI),
    "mjpeg.avi": ("mjpeg", {"q": "3"}),
    "ffv1.mkv": ("ffv1", {}),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_frame_of_every_encoding(name: str, tmp_path: Path) -> None:
    codec, options = ENCODINGS[name]
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_video(tmp_path / name, 50, codec, options=options, pix_fmt=pix_fmt)
    with VideoReader(path) as reader:
        assert len(reader) == 50
        assert (reader.height, reader.width) == (120, 160)
        assert reader.path == path
        assert numbers_of(reader.read(range(50))) == list(range(50))
        for wanted in ([49], [0], [31, 7, 7, 48, 0, 31], np.array([13, 26], np.uint8)):
            frames = reader.read(wanted)
            assert frames.dtype == np.uint8
            assert frames.shape == (len(wanted), 120, 160, 3)
            assert numbers_of(frames) == list(wanted)
    assert numbers_of(read_frames(path, [20, 3])) == [20, 3]


def test_frames_are_those_of_decoding_in_order(h264: Path) -> None:
    with av.open(h264) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.array_equal(VideoReader(h264).read(range(90)), expected)
    assert np.array_equal(VideoReader(h264, threads=2).read(range(90)), expected)
    assert VideoReader(h264).fps == 30


def test_scaling_while_reading(h264: Path) -> None:
    reader = VideoReader(h264)
    frames = reader.read([3, 60, 21], size=(60, 80))
    assert frames.shape == (3, 60, 80, 3)
    assert numbers_of(frames) == [3, 60, 21]
    blocks = reader.read([3]).reshape(1, 60, 2, 80, 2, 3).mean((2, 4))
    assert np.abs(frames[:1] - blocks).mean() < 8
    with pytest.raises(ValueError, match=r"size must be two positive integers \(got \(0, 8\)\)"):
        reader.read([0], size=(0, 8))


@pytest.mark.parametrize("extension", ["mp4", "mkv"])
def test_variable_frame_rate(tmp_path: Path, extension: str) -> None:
    times = [0, 1, 5, 6, 7, 20, 21, 22, 50, 51, 52, 53, 54, 90, 91]
    path = write_video(tmp_path / f"vfr.{extension}", len(times), times=times)
    assert numbers_of(VideoReader(path).read(range(15))) == list(range(15))
    assert len(VideoReader(path)) == 15


@pytest.mark.parametrize("name", ["one.mp4", "one.webm", "one.avi"])
def test_one_frame(tmp_path: Path, name: str) -> None:
    codec = {"mp4": "libx264", "webm": "libvpx", "avi": "mpeg4"}[name[4:]]
    reader = VideoReader(write_video(tmp_path / name, 1, codec))
    assert len(reader) == 1
    assert numbers_of(reader.read([0, 0])) == [0, 0]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "size"),
    [
        ("odd.webm", "libvpx-vp9", "yuv420p", (121, 163)),
        ("odd.mkv", "ffv1", "yuv420p", (121, 163)),
        ("odd.mp4", "libx264", "yuv444p", (121, 163)),
        ("ten.mp4", "libx265", "yuv420p10le", (120, 160)),
        ("ten.mkv", "ffv1", "yuv422p10le", (120, 160)),
        ("gray.mkv", "ffv1", "gray", (120, 160)),
        ("gray.mp4", "libx264", "gray", (120, 160)),
        ("alpha.mkv", "ffv1", "bgra", (120, 160)),
    ],
)
def test_sizes_and_pixel_formats(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, size: tuple[int, int]
) -> None:
    options = {"libx265": HEVC, "libvpx-vp9": VPX, "libx264": H264}.get(codec, {})
    path = write_video(tmp_path / name, 20, codec, options=options, pix_fmt=pix_fmt, size=size)
    reader = VideoReader(path)
    frames = reader.read(range(20))
    assert frames.shape[1:3] == (reader.height, reader.width) == size
    assert numbers_of(frames) == list(range(20))


@pytest.mark.parametrize(
    ("degrees", "flips", "turn"),
    [
        (90, {}, lambda frames: np.rot90(frames, 1, (1, 2))),
        (180, {}, lambda frames: np.rot90(frames, 2, (1, 2))),
        (-90, {}, lambda frames: np.rot90(frames, 3, (1, 2))),
        (0, {"hflip": True}, lambda frames: frames[:, :, ::-1]),
        (0, {"vflip": True}, lambda frames: frames[:, ::-1]),
    ],
)
def test_turned_by_metadata(tmp_path: Path, degrees: int, flips: dict, turn) -> None:
    upright = VideoReader(write_video(tmp_path / "upright.mp4", 5))
    path = write_video(
        tmp_path / "turned.mp4",
        5,
        setup=lambda stream: stream.set_display_rotation(degrees, **flips),
    )
    reader = VideoReader(path)
    expected = turn(upright.read([1, 4]))
    assert (reader.height, reader.width) == expected.shape[1:3]
    assert np.array_equal(reader.read([1, 4]), expected)
    half = (expected.shape[1] // 2, expected.shape[2] // 2)
    assert np.array_equal(reader.read([4], size=half), turn(upright.read([4], size=(60, 80))))


@pytest.mark.parametrize("encoding", ["h264", "open_gop"])
def test_cut_by_stream_copy(encoding: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source = request.getfixturevalue(encoding)
    path = cut_by_stream_copy(source, tmp_path / "cut.mp4", 30, 77)
    packets = packets_of(path)
    assert packets[0].is_discard
    assert len(packets) > 47 == sum(not packet.is_discard for packet in packets)
    with VideoReader(path) as reader:
        assert len(reader) == 47
        assert numbers_of(reader.read(range(47))) == list(range(30, 77))
        for index in (46, 0, 13, 30, 5):
            assert numbers_of(reader.read([index])) == [30 + index]
        uniform = np.linspace(0, 46, 16).astype(int)
        assert numbers_of(reader.read(uniform)) == (30 + uniform).tolist()


def test_damage_in_the_pre_roll(h264: Path, tmp_path: Path) -> None:
    """Frames that are not shown are references of those that are."""
    path = cut_by_stream_copy(h264, tmp_path / "cut.mp4", 30, 77)
    data = bytearray(path.read_bytes())
    keyframe = packets_of(path)[0]
    middle = keyframe.pos + keyframe.size // 2
    data[middle : middle + 200] = np.random.default_rng(0).bytes(200)
    path.write_bytes(data)
    with pytest.raises(VideoError, match=rf"^{path}: damaged"):
        read_frames(path, [0])


def test_cut_whose_start_refers_to_what_is_gone(open_gop: Path, tmp_path: Path) -> None:
    """In Matroska nothing hides the pictures before the keyframe; decoders leave them out."""
    path = cut_by_stream_copy(open_gop, tmp_path / "cut.mkv", 30, 77)
    numbers = numbers_of(VideoReader(path).read(range(len(VideoReader(path)))))
    with av.open(path) as container:
        assert numbers == [
            number_of(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)
        ]
    assert numbers == list(range(numbers[0], 77))


def test_hidden_vp8_frames_do_not_count(tmp_path: Path) -> None:
    source = write_video(tmp_path / "all.webm", 40, "libvpx", options=VPX)
    data = [bytearray(bytes(packet)) for packet in packets_of(source)]
    hidden = [7, 20, 21, 39]
    for index in hidden:
        data[index][0] &= ~0x10  # show_frame
    path = rewrite_packets(source, tmp_path / "hidden.webm", [bytes(d) for d in data])
    assert len(packets_of(path)) == 40
    reader = VideoReader(path)
    assert len(reader) == 36
    assert numbers_of(reader.read(range(36))) == [n for n in range(40) if n not in hidden]


def test_hidden_vp9_frames_do_not_count(tmp_path: Path) -> None:
    """Hidden frames share a packet with the next one, as alternate references do."""
    source = write_video(tmp_path / "all.webm", 40, "libvpx-vp9", options={**VPX, "g": "10"})
    data = [bytearray(bytes(packet)) for packet in packets_of(source)]
    hidden = [10, 30]
    for index in hidden:
        assert data[index][0] & 0b1110 == 0b0010  # a keyframe, shown
        data[index][0] &= ~0b10
    path = rewrite_packets(source, tmp_path / "hidden.webm", [bytes(d) for d in data])
    assert sum(bytes(packet)[-1] & 0xE0 == 0xC0 for packet in packets_of(path)) == 2  # superframes
    reader = VideoReader(path)
    assert len(reader) == 38
    assert numbers_of(reader.read(range(38))) == [n for n in range(40) if n not in hidden]


def test_container_that_promises_too_many_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", 20, "mpeg4", options=AVI)
    data = bytearray(path.read_bytes())
    for chunk, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):  # total frames, length
        at = data.index(chunk) + offset
        assert data[at : at + 4] == (20).to_bytes(4, "little")
        data[at : at + 4] = (200).to_bytes(4, "little")
    path.write_bytes(data)
    with av.open(path) as container:
        assert container.streams.video[0].frames == 200
    reader = VideoReader(path)
    assert len(reader) == 20
    assert numbers_of(reader.read(range(20))) == list(range(20))
    with pytest.raises(IndexError, match="frame 20 is out of range for 20 frames"):
        reader.read([20])


def test_frames_that_the_decoder_drops_in_silence(tmp_path: Path) -> None:
    """Without its reference, an HEVC picture is left out, and no error is reported."""
    source = write_video(tmp_path / "all.mp4", 24, "libx265", options=HEVC)
    packets = packets_of(source)
    lost = next(i for i, p in enumerate(packets) if i > 3 and not p.is_disposable)
    data = [bytes(p) if i != lost else None for i, p in enumerate(packets)]
    path = rewrite_packets(source, tmp_path / "lost.mp4", data)
    with av.open(path) as container:
        assert sum(1 for _ in container.decode(video=0)) < 23
    reader = VideoReader(path)
    assert numbers_of(reader.read([0])) == [0]
    with pytest.raises(VideoError, match=rf"^{path}: damaged: "):
        reader.read(range(len(reader)))


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([-1], IndexError, "frame -1 is out of range for 90 frames"),
        ([3, 90], IndexError, "frame 90 is out of range for 90 frames"),
        ([1.5], ValueError, r"indices must be integers, in a row \(got float64 of shape \(1,\)\)"),
        (
            [[1, 2]],
            ValueError,
            r"indices must be integers, in a row \(got int64 of shape \(1, 2\)\)",
        ),
        ([True], ValueError, "indices must be integers"),
    ],
)
def test_indices_are_checked(h264: Path, indices: list, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        VideoReader(h264).read(indices)


def test_no_indices(h264: Path) -> None:
    assert VideoReader(h264).read([]).shape == (0, 120, 160, 3)


def test_threads_are_checked(h264: Path) -> None:
    with pytest.raises(ValueError, match=r"threads must be a positive integer \(got 0\)"):
        VideoReader(h264, threads=0)


def test_awkward_names(h264: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the working folder they are relative: nothing stands before what looks like a protocol."""
    monkeypatch.chdir(tmp_path)
    names = ["pipe:1 %03d [x].mp4", "größe ' \".mp4", "http:a.mp4", "no extension", "concat:b.mp4"]
    for name in [*names, "data:,c.mp4", "subfile,,start,9,end,0,,:d.mp4", "-i.mp4"]:
        path = Path(name)
        path.write_bytes(h264.read_bytes())
        for given in (path, name, tmp_path / name):
            assert numbers_of(read_frames(given, [5])) == [5]


@pytest.mark.parametrize("extension", ["png", "jpg"])
def test_a_pattern_of_image_names_is_the_name_of_one_file(tmp_path: Path, extension: str) -> None:
    for number in range(5):
        Image.fromarray(draw(number)).save(tmp_path / f"img{number:03d}.{extension}")
    for name in ("img%03d", "img*", "img%d"):
        path = tmp_path / f"{name}.{extension}"
        with pytest.raises(VideoError, match="no such file"):
            VideoReader(path)
        Image.fromarray(draw(77)).save(path)
        reader = VideoReader(path)
        assert numbers_of(reader.read(range(len(reader)))) == [77]
        path.unlink()


def test_a_frame_that_is_larger_than_the_first_is_damage(tmp_path: Path) -> None:
    """What its header states is what is checked; decoders allocate no more than twice of it."""
    large = write_video(tmp_path / "large.ts", 4, size=(720, 1280))
    path = tmp_path / "joined.ts"
    path.write_bytes(write_video(tmp_path / "small.ts", 4).read_bytes() + large.read_bytes())
    assert len(VideoReader(path)) == 8
    with pytest.raises(VideoError, match=rf"^{path}: damaged"):
        VideoReader(path, limits=Limits(max_pixels=120 * 160))
    with pytest.raises(VideoError, match=r"1280x720 have 921,600 pixels, more than limits.max_"):
        VideoReader(large, limits=Limits(max_pixels=1280 * 720 - 1))


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_devices_are_no_files(device: str) -> None:
    if not os.path.exists(device):
        pytest.skip("the system has no such device")
    with pytest.raises(VideoError, match=rf"^{device}: is not a regular file$"):
        VideoReader(device)


def test_frames_one_by_one(h264: Path) -> None:
    reader = VideoReader(h264)
    everything = reader.read(range(90))
    for backend in ("pyav", "decord"):
        reader = VideoReader(h264, backend=backend)
        for wanted in ([], [3], [0, 41, 42, 89]):
            found = [frame.copy() for frame in reader.read_each(wanted)]
            assert len(found) == len(wanted)
            for frame, index in zip(found, wanted, strict=True):
                assert np.array_equal(frame, everything[index])
    for wanted in ([3, 3], [4, 2]):
        with pytest.raises(ValueError, match="indices must rise, each greater than the one before"):
            reader.read_each(wanted)
    with pytest.raises(IndexError, match="frame 90 is out of range for 90 frames"):
        reader.read_each([90])


def make_fault(kind: str, h264: Path, folder: Path) -> tuple[Path, str]:
    """A file, or something else, that cannot be read, and the reason to be given."""
    path = folder / "fault.mp4"
    whole = h264.read_bytes()
    middle = packets_of(h264)[45].pos
    damaged = bytearray(whole)
    if kind == "missing":
        return path, "no such file"
    if kind == "directory":
        path.mkdir()
        return path, "is a directory"
    if kind == "pipe":
        os.mkfifo(path)
        return path, "is not a regular file"
    if kind == "empty":
        path.write_bytes(b"")
        return path, "is empty"
    if kind == "text":
        path.write_text("this is no video\n" * 100)
        return path, "cannot be opened as a video"
    if kind == "playlist":
        path.write_text(f"ffconcat version 1.0\nfile '{h264.name}'\n")
        (folder / h264.name).write_bytes(whole)
        return path, "is text, not a video"
    if kind == "poem":
        path = folder / "poem.txt"
        path.write_text("a demuxer draws this as a terminal\n" * 100)
        return path, "is text, not a video"
    if kind == "random":
        path.write_bytes(np.random.default_rng(0).bytes(20_000))
        return path, "cannot be opened as a video"
    if kind == "audio":
        with av.open(path, "w") as container:
            stream = container.add_stream("aac", rate=16000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate = 16000
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path, "has no video stream"
    if kind == "truncated":
        path.write_bytes(whole[: int(len(whole) * 0.6)])
        return path, "truncated: it has"
    if kind == "no index":
        path.write_bytes(whole.replace(b"moov", b"junk"))
        return path, "cannot be opened as a video"
    size = {"16 bytes": 16, "4 kB": 4096}[kind]
    damaged[middle : middle + size] = np.random.default_rng(0).bytes(size)
    path.write_bytes(damaged)
    return path, "damaged"


FAULTS = ["missing", "directory", "pipe", "empty", "text", "playlist", "poem", "random", "audio"]
FAULTS += ["truncated", "no index", "16 bytes", "4 kB"]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


@pytest.mark.parametrize("kind", FAULTS)
def test_faults_name_the_file_and_the_reason(kind: str, h264: Path, tmp_path: Path) -> None:
    path, reason = make_fault(kind, h264, tmp_path)
    before, start = open_files(), time.perf_counter()
    with pytest.raises(VideoError) as caught:
        read_frames(path, range(90))
    assert time.perf_counter() - start < 2
    assert open_files() == before
    message = str(caught.value)
    assert message.startswith(f"{path}: {reason}")
    assert "\n" not in message


def test_no_permission(h264: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes(h264.read_bytes())
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything

        def refuse(*args: object, **options: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(VideoError, match=rf"^{path}: permission denied$"):
        VideoReader(path)


def test_damage_where_no_frame_is_asked_for(h264: Path, tmp_path: Path) -> None:
    path, _ = make_fault("4 kB", h264, tmp_path)
    assert numbers_of(read_frames(path, range(30))) == list(range(30))
    assert numbers_of(read_frames(path, [89, 0])) == [89, 0]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.ts", "libx264"), ("a.webm", "libvpx")],
)
def test_damage_in_other_containers(tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(tmp_path / name, 60, codec)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4096] = np.random.default_rng(0).bytes(4096)
    path.write_bytes(data)
    with pytest.raises(VideoError, match=rf"^{path}: damaged"):
        read_frames(path, range(0, len(VideoReader(path)), 3))


def test_files_are_closed(h264: Path) -> None:
    before = open_files()
    reader = VideoReader(h264)
    reader.read([2])
    reader.read([89])
    with pytest.raises(IndexError):
        reader.read([90])
    assert open_files() == before


def test_reader_and_error_survive_pickling(h264: Path) -> None:
    reader = pickle.loads(pickle.dumps(VideoReader(h264)))
    assert numbers_of(reader.read([8])) == [8]
    error = pickle.loads(pickle.dumps(VideoError("a.mp4: is empty")))
    assert isinstance(error, DataError)
    assert str(error) == "a.mp4: is empty"


class Clips(torch.utils.data.Dataset):
    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        return read_frames(self.paths[index], [4])


def test_errors_of_data_loading_processes(h264: Path, tmp_path: Path) -> None:
    loader = iter(torch.utils.data.DataLoader(Clips([h264, tmp_path / "x.mp4"]), num_workers=1))
    assert numbers_of(next(loader)[0].numpy()) == [4]
    with pytest.raises(VideoError, match=r"x\.mp4: no such file"):
        next(loader)
