"""The proof: random frames of every kind of file, by every backend, or a refusal that says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numbered import H264, HEVC, VPX, cut_by_stream_copy, numbers_of, write_video

from taghead.errors import VideoError
from taghead.video import VideoReader
from taghead.video.backends import BACKENDS

NUM_FRAMES = 90
OPEN = {**H264, "x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3"}
OPEN_HEVC = {**HEVC, "x265-params": "open-gop=1:keyint=12:bframes=3:log-level=none"}
AV1 = {"preset": "10", "crf": "20", "g": "15"}
AVI = {"bf": "2", "g": "12", "b": "1500k"}
UNEVEN = np.cumsum([1 + number % 7 % 3 for number in range(NUM_FRAMES)]).tolist()


WRITTEN: dict[str, tuple[str, dict]] = {
    "h264.mp4": ("libx264", {}),
    "h264.mkv": ("libx264", {}),
    "h264.avi": ("libx264", {}),
    "open_gop.mp4": ("libx264", {"options": OPEN}),
    "open_gop.mkv": ("libx264", {"options": OPEN}),
    "no_b_frames.mp4": ("libx264", {"options": {**H264, "bf": "0"}}),
    "variable.mp4": ("libx264", {"times": UNEVEN}),
    "variable.mkv": ("libx264", {"times": UNEVEN}),
    "10_bit.mp4": ("libx264", {"pix_fmt": "yuv420p10le"}),
    "hevc.mp4": ("libx265", {"options": HEVC}),
    "hevc_open_gop.mkv": ("libx265", {"options": OPEN_HEVC}),
    "hevc_10_bit.mp4": ("libx265", {"options": HEVC, "pix_fmt": "yuv420p10le"}),
    "vp8.webm": ("libvpx", {"options": VPX}),
    "vp9.webm": ("libvpx-vp9", {"options": VPX}),
    "vp9_variable.webm": ("libvpx-vp9", {"options": VPX, "times": UNEVEN}),
    "av1.mp4": ("libsvtav1", {"options": AV1}),
    "av1.webm": ("libsvtav1", {"options": AV1}),
    "mpeg4.avi": ("mpeg4", {"options": AVI}),
    "mpeg4.mp4": ("mpeg4", {"options": AVI}),
}


def one(folder: Path, path: Path) -> list[int]:
    write_video(path, 1)
    return [0]


def turned(folder: Path, path: Path) -> list[int]:
    write_video(path, 30, setup=lambda stream: stream.set_display_rotation(180))
    return list(range(30))


def cut(source: str, start: int, stop: int) -> Callable[[Path, Path], list[int]]:
    def make(folder: Path, path: Path) -> list[int]:
        cut_by_stream_copy(folder / source, path, start, stop)
        return list(range(start, stop))

    return make


MADE: dict[str, Callable[[Path, Path], list[int]]] = {
    "one.mp4": one,
    "turned.mp4": turned,
    "h264_cut.mp4": cut("h264.mp4", 17, 70),
    "open_gop_cut.mp4": cut("open_gop.mp4", 31, 80),
    "hevc_cut.mp4": cut("hevc.mp4", 20, NUM_FRAMES),
}
"""Each writes a file, from those above in a folder; returns the numbers of its frames."""


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[int]]]:
    """The folder of the files, and which numbers their frames have."""
    folder = tmp_path_factory.mktemp("matrix")
    numbers = {}
    for name, (codec, options) in WRITTEN.items():
        write_video(folder / name, NUM_FRAMES, codec, **options)
        numbers[name] = list(range(NUM_FRAMES))
    for name, make in MADE.items():
        numbers[name] = make(folder, folder / name)
    return folder, numbers


def draws(length: int, rng: np.random.Generator) -> list[np.ndarray]:
    """What to read: one frame, few and many, spread evenly, in a row, in any order and repeated."""
    start = rng.integers(length)
    return [
        *rng.integers(0, length, (3, 1)),
        *rng.integers(0, length, (3, 5)),
        *rng.integers(0, length, (2, 32)),
        np.linspace(0, length - 1, 32).astype(int),
        np.arange(start, min(start + 16, length)),
        np.sort(rng.integers(0, length, 16)),
        np.arange(length)[::-3],
    ]


def reader_or_refusal(path: Path, backend: str) -> VideoReader | VideoError:
    try:
        return VideoReader(path, backend=backend)
    except VideoError as error:
        return error


def upright(name: str, frames: np.ndarray) -> np.ndarray:
    """The frames as they were before metadata turned them."""
    return frames[:, ::-1, ::-1] if name == "turned.mp4" else frames


@pytest.mark.parametrize("name", [*WRITTEN, *MADE])
def test_random_frames(
    name: str, matrix: tuple[Path, dict[str, list[int]]], proof: dict[str, dict[str, int]]
) -> None:
    folder, numbers = matrix
    true = np.array(numbers[name])
    everything = VideoReader(folder / name, backend="pyav").read(range(len(true)))
    assert numbers_of(upright(name, everything)) == true.tolist()
    rng = np.random.default_rng(0)
    wanted = [indices for _ in range(2) for indices in draws(len(true), rng)]
    for backend in BACKENDS:
        found = proof.setdefault(backend, {"read": 0, "files": 0, "refused": 0})
        reader = reader_or_refusal(folder / name, backend)
        if isinstance(reader, VideoError):
            assert backend in ("decord", "torchcodec")
            assert "is not proved to be right on it (" in str(reader) or "imported" in str(reader)
            found["refused"] += 1
            continue
        assert len(reader) == len(true)
        for indices in wanted:
            frames = reader.read(indices)
            if reader.backend == "pyav":
                assert np.array_equal(frames, everything[indices])
            assert numbers_of(upright(name, frames)) == true[indices].tolist()
            found["read"] += len(indices)
        found["files"] += 1


def test_proof_is_large_enough(proof: dict[str, dict[str, int]]) -> None:
    """Last in the module: the frames that the tests before it have read."""
    if len({*WRITTEN, *MADE}) == sum(proof.get("pyav", {}).get(k, 0) for k in ("files", "refused")):
        assert sum(found["read"] for found in proof.values()) >= 10_000
        assert proof["pyav"]["refused"] == 0
        assert proof["decord"]["files"] >= 8
