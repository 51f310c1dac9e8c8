"""Lightning data module of a feature cache."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from taghead.data.annotations import Clip, Split
from taghead.data.datamodule import VideoDataModule
from taghead.features.cache import FeatureCache, FeatureDataset
from taghead.video.limits import Limits


class FeatureDataModule(VideoDataModule):
    """Feature maps that `taghead extract` wrote, instead of clips: only the head is trained.

    The checkpoint still holds a whole model, with the backbone that computed the feature maps. In
    training, a random view of each clip is drawn.

    Args:
        root: The cache's folder.
        batch_size: Feature maps in a batch.
        num_workers: Processes that read them; 0 reads in the training process.
        class_balance: Class balance of training, as in `VideoDataModule`.
        limits: What a video file may ask for where its frames are shown: on the contact sheet of a
            test report.

    Raises:
        DataError: If the folder holds no finished cache.
        ValueError: If an argument is invalid.
    """

    features: FeatureCache

    def __init__(
        self,
        root: str,
        batch_size: int = 8,
        num_workers: int = 0,
        class_balance: float = 0.0,
        limits: Limits = Limits(),  # noqa: B008, it is frozen
    ) -> None:
        features = FeatureCache(root)
        super().__init__(
            root,
            preprocessing=replace(features.preprocessing, limits=limits),
            batch_size=batch_size,
            num_workers=num_workers,
            class_balance=class_balance,
        )
        self.features = features

    @cached_property
    def listed(self) -> dict[Split, list[Clip]]:
        """All clips that the dataset lists, by split."""
        return {split: part.listed for split, part in self.features.splits.items()}

    @property
    def class_names(self) -> list[str]:
        return self.features.spec.class_names

    def dataset(self, split: Split) -> FeatureDataset:
        part = self.features.splits[split]
        return FeatureDataset(part, train=split == "train", views=split == "test")

    def choose(self, split: Split) -> None:
        part = self.features.splits[split]
        self.clips[split] = part.clips
        self.excluded[split] = part.excluded
