"""Annotations, datasets and generated clips."""

from typing import TYPE_CHECKING

from taghead.lazy import lazy_names

if TYPE_CHECKING:
    from taghead.data.annotations import Clip, read_annotations
    from taghead.data.clips import ClipDataset
    from taghead.data.datamodule import SynthGym, VideoDataModule
    from taghead.data.features.datamodule import FeatureDataModule

__all__ = [
    "Clip",
    "ClipDataset",
    "FeatureDataModule",
    "SynthGym",
    "VideoDataModule",
    "read_annotations",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Clip": "taghead.data.annotations",
        "ClipDataset": "taghead.data.clips",
        "FeatureDataModule": "taghead.data.features.datamodule",
        "SynthGym": "taghead.data.datamodule",
        "VideoDataModule": "taghead.data.datamodule",
        "read_annotations": "taghead.data.annotations",
    },
)
