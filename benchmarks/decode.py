"""Video readers side by side: 32 frames of H.264 files, from opening to RGB arrays in memory.

Every way must give the same pictures before it is timed. Prints a Markdown table, and with --output
adds it to RESULTS.md in a folder. With --opens it watches the memory of one process instead, while
it opens and reads a file that often by every backend.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import median

import av
import numpy as np
import torch
from measure import NONE, circumstances, number, publish, ratio, table, times_in_turns

from taghead.video import VideoReader, uniform_indices

CLIP = 32
NOW, AUTO = "pyav", "auto"
OPTIONS = {"preset": "medium", "crf": "23"}  # 3 B-frames, GOPs of 250 at most


def write_film(path: Path, frames: int, height: int, width: int) -> Path:
    """H.264 of a moving texture with noise, as hard to decode as camera pictures."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    texture = texture.repeat(8, axis=0).repeat(8, axis=1)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=30, options=OPTIONS)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for time in range(frames):
            picture = np.roll(texture, (time % height, 2 * time % width), axis=(0, 1))
            picture = picture // 2 + rng.integers(0, 12, picture.shape, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture)
            frame.pts, frame.time_base = time, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def by_backend(path: Path, indices: np.ndarray, backend: str) -> np.ndarray:
    return VideoReader(path, threads=1, backend=backend).read(indices)


def by_pyav_in_order(path: Path, indices: np.ndarray) -> np.ndarray:
    """Every frame up to the last one, as PyAV's own loop gives them."""
    pictures, wanted = {}, set(indices.tolist())
    with av.open(path) as container:
        container.streams.video[0].thread_type = "SLICE"
        for index, frame in enumerate(container.decode(video=0)):
            if index in wanted:
                pictures[index] = frame.to_ndarray(format="rgb24")
            if index == indices.max():
                break
    return np.stack([pictures[index] for index in indices.tolist()])


def by_decord(path: Path, indices: np.ndarray) -> np.ndarray:
    import decord

    return decord.VideoReader(str(path), num_threads=1).get_batch(indices.tolist()).asnumpy()


def by_torchcodec(path: Path, indices: np.ndarray) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
    return decoder.get_frames_at(indices.tolist()).data.numpy()


def ways() -> dict[str, Callable[[Path, np.ndarray], np.ndarray]]:
    """How to read frames, by name; torchcodec where it can be imported."""
    found: dict[str, Callable[[Path, np.ndarray], np.ndarray]] = {
        NOW: partial(by_backend, backend="pyav"),
        AUTO: partial(by_backend, backend="auto"),
        "PyAV in order": by_pyav_in_order,
        "decord": by_decord,
        "taghead's decord": partial(by_backend, backend="decord"),
    }
    try:
        importlib.import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError):
        return found
    theirs = {
        "torchcodec": by_torchcodec,
        "taghead's torchcodec": partial(by_backend, backend="torchcodec"),
    }
    return found | theirs


def row(name: str, path: Path, indices: np.ndarray, rounds: int) -> list[str]:
    """Milliseconds of the reader now, and how many times more the others take."""
    read = {way: partial(function, path, indices) for way, function in ways().items()}
    expected = read[NOW]()
    for way, function in read.items():
        if not np.array_equal(function(), expected):
            raise RuntimeError(f"{way} gives other pictures of {name}")
    times = times_in_turns(read, rounds, torch.device("cpu"))
    ratios = [number(ratio(times, way, NOW)) for way in read if way != NOW]
    return [name, number(median(times[NOW]) * 1e3), *ratios]


def speed(folder: Path, rounds: int, quick: bool) -> str:
    long_frames = 100 if quick else 3000
    small, large = ((72, 128), (144, 256)) if quick else ((360, 640), (720, 1280))
    short = write_film(folder / "short.mp4", 90, *small)
    hd = write_film(folder / "hd.mp4", 90, *large)
    long = write_film(folder / "long.mp4", long_frames, *small)
    middle = long_frames // 2
    cases = {
        f"{CLIP} uniform of 90, {small[0]}p": (short, uniform_indices(90, CLIP)),
        f"{CLIP} uniform of 90, {large[0]}p": (hd, uniform_indices(90, CLIP)),
        f"{CLIP} on end in the middle of {long_frames}, {small[0]}p": (
            long,
            np.arange(middle, middle + CLIP),
        ),
        f"{CLIP} uniform of {long_frames}, {small[0]}p": (long, uniform_indices(long_frames, CLIP)),
    }
    rows = [row(name, *case, rounds) for name, case in cases.items()]
    return table(["frames", f"{NOW}: ms", *[way for way in ways() if way != NOW]], rows)


def resident_mib() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def memory(folder: Path, opens: int) -> str:
    """Resident memory while a file is opened and read again and again."""
    path = write_film(folder / "film.mp4", 90, 120, 160)
    rng, rows = np.random.default_rng(0), []
    for backend in ("pyav", "decord", "torchcodec")[: 3 if "torchcodec" in ways() else 2]:
        marks = []
        for number_ in range(opens + 1):
            if number_ % (opens // 5) == 0:
                marks.append(resident_mib())
            VideoReader(path, backend=backend).read(rng.integers(90, size=4))
        rows.append([backend, *[f"{mark:.1f}" for mark in marks]])
    header = ["backend", *[f"after {share * (opens // 5)}" for share in range(6)]]
    return f"MiB of one process, {opens} files opened and read by each.\n\n{table(header, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--opens", type=int, default=0, help="watch memory over so many opens")
    parser.add_argument("--quick", action="store_true", help="small videos, one round: a test")
    parser.add_argument("--output", type=Path, help="folder of RESULTS.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.opens:
            body = memory(Path(folder), arguments.opens)
            publish(arguments.output, "opens", f"## Memory of reading\n\n{body}")
            return
        rounds = 1 if arguments.quick else arguments.rounds
        body = speed(Path(folder), rounds, arguments.quick)
    libraries = {"PyAV": "av", "decord2": "decord", "torchcodec": "torchcodec"}
    known = ", ".join(f"{name} {_version(module)}" for name, module in libraries.items())
    parts = [
        "## Reading video",
        f"{circumstances(torch.device('cpu'))}\n- {known}",
        f"From a path to RGB arrays, one thread. `{NOW}` is `VideoReader(path, backend='pyav')`; "
        "the others' cells say how many times more time they take for the same pictures, equal to "
        "the bit: `auto`, PyAV's plain loop, the libraries by themselves and by `VideoReader`.",
        body,
    ]
    publish(arguments.output, "decode", "\n\n".join(parts))


def _version(module: str) -> str:
    try:
        return str(importlib.import_module(module).__version__)
    except (ImportError, OSError, RuntimeError):
        return NONE


if __name__ == "__main__":
    main()
