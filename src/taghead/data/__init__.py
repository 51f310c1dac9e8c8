"""Annotations, datasets and generated clips."""

from taghead.data.annotations import Clip, read_annotations
from taghead.data.clips import ClipDataset
from taghead.data.datamodule import SynthGym, VideoDataModule

__all__ = ["Clip", "ClipDataset", "SynthGym", "VideoDataModule", "read_annotations"]
