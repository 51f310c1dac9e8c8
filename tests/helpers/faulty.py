"""Tiny clips, faults of every kind to plant into them, and a reader that crashes."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from taghead.data.index.scan import ScanJob, scan_file
from taghead.data.index.scan_result import ScanResult


def write_clip(path: Path, seed: int = 0, frames: int = 6) -> Path:
    """A clip of 32x32 pixels that differs from those of other seeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng(seed).integers(0, 256, (frames, 2, 2, 3), np.uint8)
    with av.open(path, "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        stream.thread_count = 1
        for colour in colours:
            picture = colour.repeat(16, axis=0).repeat(16, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    return path


def write_folder(root: Path, clips: int, classes: int = 5) -> list[Path]:
    """Clips in the folders of classes, as many in each as in the others."""
    return [
        write_clip(root / f"class {i % classes}" / f"clip_{i:03d}.mp4", i) for i in range(clips)
    ]


def _sound(path: Path) -> None:
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("gone.mp4"))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _zeroed(path: Path) -> None:
    """The pictures are there, but none of their bytes."""
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    path.write_bytes(data)


def _other(path: Path) -> Path:
    """The next clip in the folder."""
    names = sorted(path.parent.iterdir())
    return names[(names.index(path) + 1) % len(names)]


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "text": (lambda path: path.write_text("no video\n" * 99), "cannot be opened as a video"),
    "random": (
        lambda path: path.write_bytes(np.random.default_rng(0).bytes(3000)),
        "cannot be opened as a video",
    ),
    "link to nothing": (_dangling, "no such video file"),
    "directory": (_folder, "is a directory"),
    "pipe": (_pipe, "is not a regular file"),
    "sound": (_sound, "has no video stream"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-200]), "truncated: it has"),
    "no index": (
        lambda path: path.write_bytes(path.read_bytes().replace(b"moov", b"junk")),
        "cannot be opened as a video",
    ),
    "zeroed": (_zeroed, "damaged"),
    "playlist": (
        lambda path: path.write_text(f"ffconcat version 1.0\nfile '{_other(path).name}'\n"),
        "is text, not a video",
    ),
    "only a header": (
        lambda path: path.write_bytes(path.read_bytes()[:40]),
        "truncated: it has 40 of",
    ),
}


def plant(paths: list[Path]) -> dict[Path, str]:
    """One fault of each kind, spread over the clips; the reason that is to be given for each."""
    chosen = paths[:: len(paths) // len(FAULTS) + 1][: len(FAULTS)]
    for path, (spoil, _) in zip(chosen, FAULTS.values(), strict=True):
        spoil(path)
    return {path: reason for path, (_, reason) in zip(chosen, FAULTS.values(), strict=True)}


def crash_or_read(job: ScanJob) -> list[ScanResult]:
    """What reading does with files that bring down the decoder, or never end."""
    starts = {segment.start for segment in job.segments if segment}
    if "crash" in job.path.name or 1.0 in starts:
        signal.raise_signal(signal.SIGSEGV)
    if "hang" in job.path.name:
        time.sleep(60)
    return scan_file(job)


def killed_or_read(job: ScanJob) -> list[ScanResult]:
    """What reading does where the system kills processes, or gives no memory; `once` if so."""
    mark = job.path.with_suffix(".tried")
    if not ("once" in job.path.name and mark.exists()):
        mark.touch()
        if "kill" in job.path.name:
            signal.raise_signal(signal.SIGKILL)
        if "memory" in job.path.name:
            return [
                ScanResult(
                    job.file, "", "MemoryError: no memory", job.state.size, job.state.mtime_ns
                )
            ]
    return scan_file(job)


def copy_clip(source: Path, target: Path) -> Path:
    """A copy that keeps the time of change."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy2(source, target))
