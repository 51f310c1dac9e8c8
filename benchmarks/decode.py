"""Readers side by side: opening a file and reading 32 frames of it.

Prints a Markdown table, and with --output adds it to RESULTS.md in a folder.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import av
import numpy as np
import torch
from measure import NONE, Way, circumstances, number, publish, ratio, table, times_in_turns

from taghead.errors import VideoError
from taghead.video import VideoReader
from taghead.video.backends import BackendName

PLAIN = "plain PyAV"
BACKENDS: tuple[BackendName, ...] = ("pyav", "decord", "torchcodec")
FILES = {  # name: height, width, frames
    "360p, 90 frames": (360, 640, 90),
    "720p, 90 frames": (720, 1280, 90),
    "360p, 3000 frames": (360, 640, 3000),
}
WANTED = 32


def write(path: Path, height: int, width: int, frames: int) -> Path:
    """An H.264 file of a pattern that moves over a still, noisy background."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8), np.uint8)
    background = np.kron(noise // 4 + 96, np.ones((8, 8), np.uint8))
    rows, columns = np.mgrid[:height, :width]
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "60", "crf": "23"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for index in range(frames):
            place = (
                height * (0.5 + 0.3 * np.sin(index / 20)),
                width * (0.5 + 0.3 * np.cos(index / 17)),
            )
            disc = (rows - place[0]) ** 2 + (columns - place[1]) ** 2 < (height / 6) ** 2
            picture = np.where(disc, 230 - background // 2, background).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.stack([picture] * 3, axis=2))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def tasks(frames: int) -> Iterator[tuple[str, np.ndarray]]:
    """What to read, by name."""
    yield "spread evenly", np.linspace(0, frames - 1, WANTED).astype(int)
    middle = (frames - WANTED) // 2
    yield "in a row, in the middle", np.arange(middle, middle + WANTED)


def plainly(path: Path, wanted: np.ndarray) -> np.ndarray:
    """Every frame decoded up to the last one, and those wanted converted one by one."""
    left = set(wanted.tolist())
    with av.open(path) as container:
        container.streams.video[0].thread_count = 1
        pictures = []
        for index, frame in enumerate(container.decode(video=0)):
            if index in left:
                pictures.append(frame.to_ndarray(format="rgb24"))
                left.remove(index)
            if not left:
                break
    return np.stack(pictures)


def through(backend: BackendName, path: Path, wanted: np.ndarray) -> np.ndarray:
    return VideoReader(path, threads=1, backend=backend).read(wanted)


def ways(path: Path, wanted: np.ndarray) -> dict[str, Way]:
    """Every reader that runs here; all give the same pictures, or there is an error."""
    found: dict[str, Way] = {PLAIN: partial(plainly, path, wanted)}
    for backend in BACKENDS:
        if backend == "torchcodec" and find_spec("torchcodec") is None:
            continue
        try:
            pictures = through(backend, path, wanted)
        except VideoError as error:
            print(f"{backend} is left out: {error}")
            continue
        if np.abs(pictures.astype(int) - plainly(path, wanted)).max() > 8:
            raise SystemExit(f"error: {backend} gives other pictures than plain PyAV")
        found[backend] = partial(through, backend, path, wanted)
    return found


def rows(folder: Path, rounds: int, quick: bool) -> Iterator[list[str]]:
    for name, (height, width, frames) in FILES.items():
        size = (48, 64, 60) if quick else (height, width, frames)
        path = write(folder / f"{name}.mp4", *size)
        for task, wanted in tasks(size[2]):
            readers = ways(path, wanted)
            times = times_in_turns(readers, rounds, torch.device("cpu"))
            cells = [
                f"{1e3 * median(times[reader]):.1f} ms, {number(ratio(times, PLAIN, reader))}"
                if reader in readers
                else NONE
                for reader in (PLAIN, *BACKENDS)
            ]
            yield [f"{name}, {task}", *cells]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="a tiny size: shows that it works")
    parser.add_argument("--output", type=Path, help="folder for RESULTS.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = list(rows(Path(folder), 1 if args.quick else args.rounds, args.quick))
    parts = [
        "## Readers",
        circumstances(torch.device("cpu")),
        f"Opening an H.264 file and reading {WANTED} frames at full size with one thread: "
        "milliseconds, and how many times faster than plain PyAV, which decodes from the start. "
        "All but plain PyAV look at every packet first, so that no frame is a wrong one.",
        table(["file and frames", PLAIN, *BACKENDS], found),
    ]
    publish(args.output, "decode", "\n\n".join(parts))


if __name__ == "__main__":
    main()
