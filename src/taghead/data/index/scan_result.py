"""What is known about a clip, beside its class: the outcome of reading it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av

from taghead import __version__
from taghead.data.annotations import Clip

Key = tuple[str, str]
"""File and segment: what tells a clip from the others of a folder."""


@dataclass(frozen=True)
class Facts:
    """What a scan found out about a clip.

    Args:
        file: The video file: within the folder of videos, or absolute.
        segment: The part of it, as text; empty for the whole file.
        reason: Why the clip cannot be used; empty if it can.
        size: Bytes of the file.
        mtime_ns: When the file was changed, in nanoseconds.
        content_hash: BLAKE2b of the file, 16 bytes as hexadecimal text, if it was asked for.
        codec: Codec of the video.
        backend: What `VideoReader` takes to decode it.
        backend_reason: Why it takes that.
        fps: Frames per second of the file.
        width: Width of its frames as shown.
        height: Height of its frames as shown.
        file_frames: Frames of the file, as a player shows them.
        file_sec: Duration of the file.
        first_frame: Number of the clip's first frame in the file.
        num_frames: Frames of the clip.
        duration_sec: Duration of the clip.
    """

    file: str
    segment: str = ""
    reason: str = ""
    size: int = 0
    mtime_ns: int = 0
    content_hash: str = ""
    codec: str = ""
    backend: str = ""
    backend_reason: str = ""
    fps: float = 0.0
    width: int = 0
    height: int = 0
    file_frames: int = 0
    file_sec: float = 0.0
    first_frame: int = 0
    num_frames: int = 0
    duration_sec: float = 0.0

    @property
    def key(self) -> Key:
        """What tells it from other clips of the folder."""
        return self.file, self.segment

    @property
    def usable(self) -> bool:
        """Whether the clip can be read."""
        return not self.reason


def key_of(clip: Clip, root: str | Path) -> Key:
    """What tells a clip from the others, wherever the folder of videos lies."""
    file, folder = clip.path.absolute(), Path(root).absolute()
    inside = file.relative_to(folder) if file.is_relative_to(folder) else file
    return inside.as_posix(), str(clip.segment or "")


def written_by() -> str:
    """What decides what a scan finds; facts of another one are not relied on."""
    ffmpeg = getattr(av, "ffmpeg_version_info", "unknown")
    return f"taghead {__version__}, PyAV {av.__version__}, FFmpeg {ffmpeg}"
