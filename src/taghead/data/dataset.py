"""Torch dataset of annotated clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from taghead.data.annotations import Clip
from taghead.data.seeding import SampleKey, index_and_randomness
from taghead.video.preprocessing import Preprocessing


class LabelledDataset(Dataset):
    """A dataset with an item for each of some annotated clips.

    Args:
        clips: The clips.
    """

    def __init__(self, clips: Sequence[Clip]) -> None:
        self.clips = list(clips)

    @property
    def labels(self) -> list[int]:
        """The class of each clip."""
        return [clip.label for clip in self.clips]

    def __len__(self) -> int:
        return len(self.clips)


class ClipDataset(LabelledDataset):
    """Annotated clips, read and transformed.

    An item is asked for by its index, or as a :class:`~taghead.data.seeding.SampleKey`, which has
    the seed of its random numbers.

    Args:
        clips: What to read.
        preprocessing: How frames are sampled and transformed.
        train: Whether sampling and transform are the random ones for training.
        views: Whether an item is all views of a test, where there are several.
        surveys: Stored surveys of files, by absolute path.

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
        surveys: Mapping[Path, str] | None = None,
    ) -> None:
        super().__init__(clips)
        self.preprocessing = preprocessing
        self.train = train
        self.views = views and preprocessing.num_views > 1
        self.surveys = dict(surveys or {})

    def __getitem__(self, key: int | SampleKey) -> tuple[Tensor, int, int]:
        index, randomness = index_and_randomness(key)
        clip = self.clips[index]
        survey = self.surveys.get(clip.path.absolute(), "") if self.surveys else ""
        if self.views:
            views = self.preprocessing.load_views(clip.path, clip.segment, survey)
            return views, clip.label, index
        with randomness:
            tensor = self.preprocessing.load(clip.path, self.train, clip.segment, survey)
        return tensor, clip.label, index
