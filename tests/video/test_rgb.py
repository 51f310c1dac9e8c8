import gc
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange
from numbered import H264, write_video

from taghead.errors import VideoError
from taghead.video import VideoReader
from taghead.video.rgb import _BANDED, Orientation, RGBConverter, corner
from taghead.video.survey import survey

BT601, BT709 = 6, 1  # AVColorSpace


def flat_frame(
    pix_fmt: str, values: tuple[int, ...], color_range: int, colorspace: int = BT601
) -> av.VideoFrame:
    frame = av.VideoFrame(48, 32, pix_fmt)
    dtype = np.uint16 if "10" in pix_fmt else np.uint8
    for plane, value in zip(frame.planes, values, strict=True):
        plane.update(np.full(plane.buffer_size // dtype().itemsize, value, dtype).tobytes())
    frame.color_range, frame.colorspace = color_range, colorspace
    return frame


def shown(frame: av.VideoFrame) -> list[int]:
    convert = RGBConverter(frame.height, frame.width, Orientation.of_frame(Path("x"), frame))
    picture = convert(frame)
    assert (picture == picture[0, 0]).all()
    return picture[0, 0].tolist()


LIMITED, FULL = ColorRange.MPEG, ColorRange.JPEG


@pytest.mark.parametrize(
    ("pix_fmt", "values", "color_range", "expected"),
    [
        ("yuv420p", (235, 128, 128), LIMITED, 255),
        ("yuv420p", (16, 128, 128), LIMITED, 0),
        ("yuv420p", (235, 128, 128), ColorRange.UNSPECIFIED, 255),
        ("yuv420p", (235, 128, 128), FULL, 235),
        ("yuvj420p", (235, 128, 128), FULL, 235),
        ("yuv444p", (235, 128, 128), LIMITED, 255),
        ("yuv420p10le", (940, 512, 512), LIMITED, 255),
        ("yuv420p10le", (64, 512, 512), LIMITED, 0),
        ("gray", (235,), LIMITED, 255),
        ("gray", (16,), LIMITED, 0),
        ("gray", (235,), FULL, 235),
        ("gray10le", (940,), LIMITED, 255),
    ],
)
def test_levels(pix_fmt: str, values: tuple[int, ...], color_range: int, expected: int) -> None:
    assert shown(flat_frame(pix_fmt, values, color_range)) == [expected] * 3


@pytest.mark.parametrize(
    ("colorspace", "kr", "kb"), [(BT601, 0.299, 0.114), (BT709, 0.2126, 0.0722)]
)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le"])
def test_colours(pix_fmt: str, colorspace: int, kr: float, kb: float) -> None:
    y, u, v = 110, 100, 150
    luma, blue, red = (y - 16) / 219, (u - 128) / 224, (v - 128) / 224
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    scale = 4 if "10" in pix_fmt else 1
    frame = flat_frame(pix_fmt, (y * scale, u * scale, v * scale), LIMITED, colorspace)
    np.testing.assert_allclose(shown(frame), np.array([r, g, b]) * 255, atol=3)


def test_refuses_a_slanted_picture() -> None:
    matrix = np.array([60000, 20000, 0, -20000, 60000, 0, 0, 0, 1 << 30], np.int32)
    frame = SimpleNamespace(side_data={"DISPLAYMATRIX": matrix})
    with pytest.raises(VideoError, match=r"^clip\.mp4: .*multiple of 90 degrees$"):
        Orientation.of_frame(Path("clip.mp4"), frame)


INTERLACED = {
    "a.mp4": ("libx264", {**H264, "flags": "+ildct+ilme", "x264-params": "tff=1"}),
    "a.mpg": ("mpeg2video", {"flags": "+ildct+ilme", "b": "2000k"}),
}


@pytest.mark.parametrize("name", INTERLACED)
@pytest.mark.parametrize("size", [(60, 80), (52, 76), (120, 70), (250, 330)])
def test_interlaced_frames_are_scaled_as_pictures(
    tmp_path: Path, name: str, size: tuple[int, int]
) -> None:
    codec, options = INTERLACED[name]
    path = write_video(tmp_path / name, 6, codec, options=options)
    with av.open(path) as container:
        assert all(frame.interlaced_frame for frame in container.decode(video=0))
    reader = VideoReader(path)
    whole, scaled = reader.read([1, 4]), reader.read([1, 4], size)
    convert = RGBConverter(*size, Orientation())
    for picture, small in zip(whole, scaled, strict=True):
        assert np.array_equal(convert(av.VideoFrame.from_ndarray(picture, "rgb24")), small)


def test_a_small_picture_of_two_fields_has_no_comb(tmp_path: Path) -> None:
    """Fields that are black and white blend to gray."""
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as container:
        options = {"flags": "+ildct+ilme", "x264-params": "tff=1", "crf": "1"}
        stream = container.add_stream("libx264", rate=30, options=options)
        stream.height, stream.width, stream.pix_fmt = 128, 128, "yuv420p"
        rows = np.where(np.arange(128) % 2, 235, 20).astype(np.uint8)
        picture = np.broadcast_to(rows[:, None, None], (128, 128, 3)).copy()
        for pts in range(4):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts = pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    reader = VideoReader(path)
    assert np.ptp(reader.read([1])[0, :, 64, 1].astype(int)) > 180
    assert np.ptp(reader.read([1], size=(64, 64))[0, 4:-4, 32, 1].astype(int)) < 30


def noise(pix_fmt: str, height: int, width: int) -> av.VideoFrame:
    """A frame in which no two rows or columns are alike."""
    frame = av.VideoFrame(width, height, pix_fmt)
    random = np.random.default_rng(0)
    for plane in frame.planes:
        if "10" in pix_fmt:
            content = random.integers(0, 1024, plane.buffer_size // 2, np.uint16)
        else:
            content = random.integers(0, 256, plane.buffer_size, np.uint8)
        plane.update(content.tobytes())
    frame.pts = 0
    return frame


TURNS = [Orientation(*flags) for flags in product([False, True], repeat=3)]


@pytest.mark.parametrize("pix_fmt", sorted(_BANDED))
@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize(("height", "width"), [(302, 200), (96, 331), (94, 330), (121, 163)])
def test_bands_are_the_picture(
    pix_fmt: str, turn: Orientation, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taghead.video.rgb.BAND_BYTES", 0)
    frame = noise(pix_fmt, height, width)
    frame.color_range, frame.colorspace = LIMITED, BT709
    convert = RGBConverter(*turn.swap(height, width), turn)
    whole = convert(frame).copy()
    bands = [band.copy() for band in convert.bands(frame)]
    is_odd = height % 2 or width % 2
    assert len(bands) == (1 if is_odd else -(-len(whole) // 64))
    assert all(band.shape[1:] == whole.shape[1:] for band in bands)
    assert np.array_equal(np.concatenate(bands), whole)


def test_bands_of_interlaced_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taghead.video.rgb.BAND_BYTES", 0)
    codec, options = INTERLACED["a.mp4"]
    path = write_video(tmp_path / "a.mp4", 6, codec, options=options, size=(240, 160))
    reader = VideoReader(path)
    whole = reader.read(range(6))
    for picture, bands in zip(whole, reader.read_bands(range(6)), strict=True):
        assert np.array_equal(np.concatenate([band.copy() for band in bands]), picture)


def test_other_formats_are_one_band(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taghead.video.rgb.BAND_BYTES", 0)
    frame = noise("yuv411p", 200, 202)
    convert = RGBConverter(200, 202, Orientation())
    whole = convert(frame).copy()
    (band,) = convert.bands(frame)
    assert np.array_equal(band, whole)


def test_a_frame_whose_display_matrix_was_read_is_freed_at_once(tmp_path: Path) -> None:
    """PyAV's side data and their frame hold each other."""
    path = write_video(tmp_path / "a.mp4", 3, setup=lambda one: one.set_display_rotation(90))
    with av.open(path) as container:
        frame = next(container.decode(video=0))
        turn = Orientation.of_frame(path, frame)
        assert turn.transpose
        assert Orientation.of_frame(path, corner(frame)) == turn
    del frame
    gc.collect()
    gc.disable()
    try:
        survey(path)
        left = [one.width for one in gc.get_objects() if type(one) is av.VideoFrame]
    finally:
        gc.enable()
    assert set(left) <= {8}
