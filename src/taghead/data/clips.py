"""Clips as a torch dataset, and the check that all of them can be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
        train: Whether the transform is the random one for training.

    Shapes:
        - **item** clip `[3, T, H, W]`, label, index of the clip

    Raises:
        VideoError: From an item, if its video cannot be read.
    """

    def __init__(
        self, clips: Sequence[Clip], preprocessing: Preprocessing, train: bool = False
    ) -> None:
        self.clips = list(clips)
        self.preprocessing = preprocessing
        self.train = train

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        clip = self.clips[index]
        return self.preprocessing.load(clip.path, train=self.train), clip.label, index


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
    """The clips whose frames, as a test samples them, cannot be read.

    Args:
        clips: What to check.
        preprocessing: How frames are sampled.
        num_workers: Processes that read; 0 reads here.
        title: What the progress bar calls them.
    """
    reasons = DataLoader(_Reasons(clips, preprocessing), batch_size=None, num_workers=num_workers)
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
            self.preprocessing.load(self.clips[index].path)
        except VideoError as error:
            return str(error)
        return ""
