"""Clips as a torch dataset."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import Dataset

from taghead.data.annotations import Clip
from taghead.data.seeding import Draw, index_and_randomness
from taghead.video.preprocessing import Preprocessing


class ClipDataset(Dataset):
    """Annotated clips, read and transformed.

    An item is asked for by its index, or as a :class:`~taghead.data.seeding.Draw`, which says what
    is drawn at random.

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

    def __getitem__(self, key: int | Draw) -> tuple[Tensor, int, int]:
        index, randomness = index_and_randomness(key)
        clip = self.clips[index]
        if self.views:
            views = self.preprocessing.load_views(clip.path, clip.segment)
            return views, clip.label, index
        with randomness:
            tensor = self.preprocessing.load(clip.path, self.train, clip.segment)
        return tensor, clip.label, index
