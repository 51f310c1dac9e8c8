"""Annotations, datasets and generated clips."""

from typing import TYPE_CHECKING

from taghead.lazy import lazy_names

if TYPE_CHECKING:
    from taghead.data.annotations import Clip, read_annotations
    from taghead.data.clips import ClipDataset
    from taghead.data.datamodule import SynthGym, VideoDataModule

__all__ = ["Clip", "ClipDataset", "SynthGym", "VideoDataModule", "read_annotations"]

__getattr__ = lazy_names(
    __name__,
    {
        "Clip": "taghead.data.annotations",
        "ClipDataset": "taghead.data.clips",
        "SynthGym": "taghead.data.datamodule",
        "VideoDataModule": "taghead.data.datamodule",
        "read_annotations": "taghead.data.annotations",
    },
)
