"""Clip of a dataset: a video file or a segment of one, and its class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from taghead.video.segment import Segment

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Clip:
    """One annotated clip.

    Args:
        path: The video file.
        label: The class's number.
        class_name: The class's name.
        segment: The part of the file that it is; the whole file if None.
        listed_frames: How many frames the annotation says that it has, if it does. This is not
            always right.
        fault: Why the annotation itself cannot be used, if so: the clip counts, but cannot be read.
    """

    path: Path
    label: int
    class_name: str
    segment: Segment | None = None
    listed_frames: int | None = None
    fault: str = ""

    @property
    def id(self) -> str:
        """The path, with the segment if there is one: clips with the same id are the same."""
        span = str(self.segment or self.fault)
        return f"{self.path} [{span}]" if self.segment or self.fault else str(self.path)

    def to_dict(self) -> dict[str, Any]:
        """The arguments, ready for JSON."""
        return {**asdict(self), "path": str(self.path)}

    @classmethod
    def from_dict(cls, arguments: Mapping[str, Any]) -> Clip:
        """The inverse of :meth:`to_dict`."""
        segment = arguments.get("segment")
        parts = {"path": Path(arguments["path"]), "segment": segment and Segment(**segment)}
        return cls(**{**arguments, **parts})
