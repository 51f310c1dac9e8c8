"""Clips as a torch dataset, and the check that all of them can be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from taghead.data.annotations import Clip
from taghead.errors import VideoError
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
    """A clip that cannot be used, and why."""

    clip: Clip
    reason: str


def find_missing(clips: Sequence[Clip]) -> list[Unreadable]:
    """The clips that are no file, or an empty one: a look at the folder, without opening any."""
    missing = []
    for clip in clips:
        if not clip.path.is_file():
            missing.append(Unreadable(clip, f"{clip.path}: no such video file"))
        elif clip.path.stat().st_size == 0:
            missing.append(Unreadable(clip, f"{clip.path}: the file is empty"))
    return missing


def find_unreadable(
    clips: Sequence[Clip], preprocessing: Preprocessing, num_workers: int = 0, title: str = "clips"
) -> list[Unreadable]:
    """The clips whose frames, from the first to the last, cannot be read.

    Args:
        clips: What to check.
        preprocessing: How many frames are read, and their size.
        num_workers: Processes that read; 0 reads here.
        title: What the progress bar calls them.
    """
    # another sampling may stop before the last frame, which training or other views then read
    whole = replace(preprocessing, sampling="uniform", stride=1)
    reasons = DataLoader(_Reasons(clips, whole), batch_size=None, num_workers=num_workers)
    progress = track(
        reasons, f"Checking {title}", len(clips), transient=True, console=Console(stderr=True)
    )
    return [Unreadable(clip, why) for clip, why in zip(clips, progress, strict=True) if why]


class _Reasons(Dataset):
    """Why a clip cannot be read; an empty text when it can."""

    def __init__(self, clips: Sequence[Clip], preprocessing: Preprocessing) -> None:
        self.clips = list(clips)
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> str:
        try:
            self.preprocessing.load(self.clips[index].path, segment=self.clips[index].segment)
        except VideoError as error:
            return str(error)
        return ""
