"""Scan result: the properties of a clip as decoded, or why it cannot be used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import av

from taghead import __version__
from taghead.data.annotations import Clip
from taghead.video.limits import MORE_THAN

TRANSIENT = ("MemoryError", "not read: ")
"""How reasons begin that are this machine's and not the file's."""

_TYPES: dict[str, tuple[type[Any], ...]] = {"str": (str,), "int": (int,), "float": (float, int)}

ClipKey = tuple[str, str]
"""File and segment, as text: identifies a clip within a folder of videos."""


@dataclass(frozen=True)
class ScanResult:
    """The result of scanning a clip and its file.

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
        survey: The file's survey as text, at the first of its segments
            (:func:`~taghead.video.survey_cache.survey_to_text`); empty if there is none.
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
    survey: str = field(default="", repr=False)

    @classmethod
    def from_record(cls, record: object) -> ScanResult:
        """The result that a mapping holds, as a file of anyone's may have it.

        Raises:
            ValueError: If a name or the type of a value is another one.
        """
        if not isinstance(record, dict):
            raise ValueError(f"a scan result must be a mapping (got {type(record).__name__})")
        types = {one.name: _TYPES[str(one.type)] for one in fields(cls)}
        for name, value in record.items():
            if type(value) not in types.get(name, ()):
                raise ValueError(f"a scan result has no {name} = {value!r}"[:200])
        if "file" not in record:
            raise ValueError("a scan result must name a file")
        return cls(**record)

    @property
    def key(self) -> ClipKey:
        """The clip's key in the folder of videos."""
        return self.file, self.segment

    @property
    def usable(self) -> bool:
        """Whether the clip can be read."""
        return not self.reason

    @property
    def exceeds_limits(self) -> bool:
        """Whether the clip was refused for its size: with other limits it may be usable."""
        return MORE_THAN in self.reason

    @property
    def is_transient(self) -> bool:
        """Whether it says nothing of the file: the next scan reads it again."""
        return self.reason.startswith(TRANSIENT)


def clip_key(clip: Clip, root: str | Path) -> ClipKey:
    """A clip's key, which is the same wherever the folder of videos lies."""
    file, folder = clip.path.absolute(), Path(root).absolute()
    inside = file.relative_to(folder) if file.is_relative_to(folder) else file
    return inside.as_posix(), str(clip.segment or "")


def written_by() -> str:
    """Versions that decide what a scan finds; results of other versions are not used."""
    ffmpeg = getattr(av, "ffmpeg_version_info", "unknown")
    return f"taghead {__version__}, PyAV {av.__version__}, FFmpeg {ffmpeg}"


def surveys_of(results: Iterable[ScanResult], root: str | Path) -> dict[Path, str]:
    """The surveys that scan results hold, by absolute path of the file."""
    folder = Path(root).absolute()
    return {folder / result.file: result.survey for result in results if result.survey}
