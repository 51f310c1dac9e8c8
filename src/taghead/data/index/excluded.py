"""Excluded clips: those that cannot be used, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from taghead.data.annotations import Clip, Split
from taghead.data.index.scan import file_states
from taghead.files import name_to_text


@dataclass(frozen=True)
class ExcludedClip:
    """A clip that cannot be used, and why: `<path>: <reason>`."""

    clip: Clip
    reason: str

    @classmethod
    def of(cls, clip: Clip, reason: str) -> ExcludedClip:
        """A clip and the reason without its path."""
        return cls(clip, f"{clip.path}: {reason}")

    @property
    def bare_reason(self) -> str:
        """The reason without the path."""
        return self.reason.removeprefix(f"{self.clip.path}: ")


def find_missing(clips: Sequence[Clip]) -> list[ExcludedClip]:
    """The clips that are no file, or whose annotation is faulty. No file is opened."""
    states = file_states(clips)
    return [
        ExcludedClip.of(clip, reason)
        for clip in clips
        if (reason := clip.fault or states[clip.path].reason)
    ]


def excluded_table(excluded: Mapping[Split, Sequence[ExcludedClip]]) -> pd.DataFrame:
    """The clips of each split that are left out, a row each: split, path, segment and reason.

    Paths are text, as :func:`~taghead.files.name_to_text` has them.
    """
    rows = [
        (
            split,
            name_to_text(bad.clip.path),
            str(bad.clip.segment or ""),
            name_to_text(bad.bare_reason),
        )
        for split, several in excluded.items()
        for bad in several
    ]
    return pd.DataFrame(rows, columns=["split", "path", "segment", "reason"])
