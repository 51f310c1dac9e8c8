"""Clips as a torch dataset, and those that cannot be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from torch import Tensor
from torch.utils.data import Dataset

from taghead.data.annotations import Clip, Split
from taghead.data.scanning import file_states
from taghead.video import Preprocessing


class ClipDataset(Dataset):
    """Annotated clips, read and transformed.

    Args:
        clips: What to read.
        preprocessing: How frames are sampled and transformed.
        train: Whether sampling and transform are the random ones for training.
        views: Whether an item is all views of a test, where there are several.

    Shapes:
        - **item** clip `[3, T, H, W]` or views `[V, 3, T, H, W]`, label, index of the clip

    Raises:
        VideoError: From an item, if its video cannot be read.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        preprocessing: Preprocessing,
        train: bool = False,
        views: bool = False,
    ) -> None:
        self.clips = list(clips)
        self.preprocessing = preprocessing
        self.train = train
        self.views = views and preprocessing.num_views > 1

    @property
    def labels(self) -> list[int]:
        """The class of each clip."""
        return [clip.label for clip in self.clips]

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        clip = self.clips[index]
        if self.views:
            views = self.preprocessing.load_views(clip.path, clip.segment)
            return views, clip.label, index
        tensor = self.preprocessing.load(clip.path, self.train, clip.segment)
        return tensor, clip.label, index


@dataclass(frozen=True)
class Unreadable:
    """A clip that cannot be used, and why: `<path>: <reason>`."""

    clip: Clip
    reason: str


def find_missing(clips: Sequence[Clip]) -> list[Unreadable]:
    """The clips that are no file, or whose annotation is faulty: a look, without opening any."""
    states = file_states(clips)
    return [
        Unreadable(clip, f"{clip.path}: {reason}")
        for clip in clips
        if (reason := clip.fault or states[clip.path].reason)
    ]


def excluded_table(excluded: Mapping[Split, Sequence[Unreadable]]) -> pd.DataFrame:
    """The clips of each split that are left out, a row each: split, path, segment and reason."""
    rows = [
        (split, str(bad.clip.path), str(bad.clip.segment or ""), _without_path(bad))
        for split, several in excluded.items()
        for bad in several
    ]
    return pd.DataFrame(rows, columns=["split", "path", "segment", "reason"])


def _without_path(bad: Unreadable) -> str:
    return bad.reason.removeprefix(f"{bad.clip.path}: ")
