"""Faulty files of many kinds, made from whole ones, and what becomes of reading them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np
from numbered import H264, HEVC, VPX, write_video

from taghead.errors import VideoError
from taghead.video import VideoReader
from taghead.video.survey import survey

FRAMES = 40
SOURCES = {  # codec and its options
    "h264.mp4": ("libx264", H264),
    "fast.mp4": ("libx264", H264),  # its index comes first
    "h264.mkv": ("libx264", H264),
    "hevc.mp4": ("libx265", HEVC),
    "vp8.webm": ("libvpx", VPX),
    "vp9.webm": ("libvpx-vp9", VPX),
    "mpeg4.avi": ("mpeg4", {"bf": "2", "g": "12", "b": "1500k"}),
}
DAMAGES = ("cut short", "1 bit flipped", "9 bits flipped", "zeroed", "overwritten")
REFUSED, WHOLE, PICTURES = "refused", "right", "damage that the decoder passes over"
HIDDEN, DROPPED = "frames hidden by a damaged container", "dropped in silence"


@dataclass(frozen=True)
class Job:
    """A file to read, what it was made from, and how."""

    path: Path
    source: Path
    kind: str
    backend: str = "pyav"


def write_sources(folder: Path) -> list[Path]:
    paths = []
    for name, (codec, options) in SOURCES.items():
        container = {"movflags": "faststart"} if name == "fast.mp4" else {}
        path = write_video(
            folder / name, FRAMES, codec, options=options, container_options=container
        )
        paths.append(path)
    return paths


def write_corpus(sources: list[Path], folder: Path, each: int) -> Iterator[Job]:
    """Damages every source `each` times in every way, and adds files that are no videos."""
    rng = np.random.default_rng(0)
    for source in sources:
        whole = source.read_bytes()
        for kind in DAMAGES:
            for number in range(each):
                path = folder / f"{kind} {number} {source.name}"
                path.write_bytes(_damaged(whole, kind, rng))
                yield Job(path, source, kind)
        for extension in (".txt", ".avi", ".mp4", ".png", ".mp3", ""):
            path = folder / f"{source.name}{extension} of another extension{extension}"
            path.write_bytes(whole)
            yield Job(path, source, "wrong extension")
    yield from _no_videos(sources[0], folder)


def _damaged(whole: bytes, kind: str, rng: np.random.Generator) -> bytes:
    data, at = bytearray(whole), int(rng.integers(len(whole)))
    if kind == "cut short":
        return bytes(data[:at])
    size = int(rng.integers(1, 2000))
    if kind == "zeroed":
        data[at : at + size] = bytes(size)
    elif kind == "overwritten":
        data[at : at + size] = rng.bytes(size)
    else:
        for place in rng.integers(len(data), size=int(kind.split()[0])):
            data[place] ^= 1 << int(rng.integers(8))
    return bytes(data[: len(whole)])


def _no_videos(source: Path, folder: Path) -> Iterator[Job]:
    contents = {"empty": b"", "text": b"this is no video\n" * 50, "noise": os.urandom(9000)}
    for kind, data in contents.items():
        for extension in (".mp4", ".mkv", ".avi", ".webm"):
            path = folder / f"{kind}{extension}"
            path.write_bytes(data)
            yield Job(path, source, kind)
    (folder / "folder.mp4").mkdir()
    yield Job(folder / "folder.mp4", source, "directory")
    yield Job(folder / "missing.mp4", source, "missing")
    secret = folder / "secret.mp4"
    secret.write_bytes(source.read_bytes())
    secret.chmod(0)
    yield Job(secret, source, "no permission")
    for extension in (".mp4", ".mkv"):
        yield Job(_write_sound(folder / f"sound{extension}"), source, "audio only")


def _write_sound(path: Path) -> Path:
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@cache
def _pictures(source: Path) -> np.ndarray:
    return VideoReader(source).read(range(FRAMES))


def read_all(job: Job) -> str:
    """How reading all frames of a file ends; an error other than a refusal by its name."""
    av.logging.set_level(None)
    try:
        reader = VideoReader(job.path, backend=job.backend)
        pictures = reader.read(range(len(reader)))
    except VideoError as error:
        return REFUSED if str(error).startswith(f"{job.path}: ") else f"nameless: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    right = _pictures(job.source)
    if len(pictures) != len(right):
        hidden = int((~survey(job.path).shown).sum())
        return HIDDEN if len(pictures) + hidden == len(right) else DROPPED
    return WHOLE if np.array_equal(pictures, right) else PICTURES
