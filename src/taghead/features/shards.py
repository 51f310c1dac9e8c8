"""Shards of a feature cache: files that hold the feature maps of consecutive clips of a split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from taghead.data.annotations import Split
from taghead.errors import DataError
from taghead.features.feature_spec import FeatureSpec
from taghead.files import atomic_file

KEY = "feature_maps"
METADATA_KEY = "shard"  # one key: safetensors writes several in no fixed order


@dataclass(frozen=True)
class Shard:
    """Which clips a shard holds: consecutive ones of a split.

    Args:
        split: The split of its clips.
        start: Number, in the list of the split, of its first clip.
        stop: Number after that of its last clip.
        num_views: Views of each clip.
    """

    split: Split
    start: int
    stop: int
    num_views: int

    @property
    def file(self) -> str:
        return f"{self.split}-{self.start:07d}.safetensors"

    @property
    def num_maps(self) -> int:
        """Feature maps that it holds if no clip is left out."""
        return (self.stop - self.start) * self.num_views


@dataclass(frozen=True)
class WrittenShard:
    """A shard that is on disk.

    Args:
        shard: Its clips.
        sha256: Digest of the bytes of its feature maps.
        num_bytes: Size of the file.
        excluded: Why a clip is not in it, by the clip's number in the list.
    """

    shard: Shard
    sha256: str
    num_bytes: int
    excluded: Mapping[int, str]

    @property
    def clips(self) -> list[int]:
        """Numbers of the clips that it holds, in their order."""
        return [i for i in range(self.shard.start, self.shard.stop) if i not in self.excluded]


def plan_shards(spec: FeatureSpec, max_bytes: int) -> Iterator[Shard]:
    """All shards of a cache: as many clips in each as fit into `max_bytes`, at least one."""
    for split, clips in spec.clips.items():
        views = spec.views(split)
        size = max(1, max_bytes // (views * map_bytes(spec.feature_shape)))
        for start in range(0, len(clips), size):
            yield Shard(split, start, min(start + size, len(clips)), views)


def map_bytes(feature_shape: tuple[int, ...]) -> int:
    """Bytes of one feature map: two a number, in float16 and in bfloat16."""
    return 2 * prod(feature_shape)


def cache_bytes(
    num_clips: Mapping[str, int], num_views: int, feature_shape: tuple[int, int, int, int]
) -> int:
    """Bytes of the feature maps of a dataset.

    Args:
        num_clips: Clips of each split.
        num_views: Views of each clip of the split `train`; the others have one.
        feature_shape: A feature map's (C, T, H, W).
    """
    maps = sum(n * (num_views if split == "train" else 1) for split, n in num_clips.items())
    return maps * map_bytes(feature_shape)


def write_shard(
    root: Path, shard: Shard, spec_digest: str, feature_maps: Tensor, excluded: Mapping[int, str]
) -> WrittenShard:
    """Writes a shard; the file appears complete or not at all.

    Args:
        root: The cache's folder.
        shard: The shard.
        spec_digest: The digest of the cache's spec.
        feature_maps: Those of the clips that are not excluded.
        excluded: Why a clip is left out, by its number in the list.

    Shapes:
        - **feature_maps** `[clips, views, C, T, H, W]`
    """
    sha256 = _sha256(feature_maps)
    about = {"recipe": spec_digest, "sha256": sha256, "stop": shard.stop, "excluded": excluded}
    data = save({KEY: feature_maps}, {METADATA_KEY: json.dumps(about, allow_nan=False)})
    with atomic_file(root / shard.file) as partial:
        partial.write_bytes(data)
    return WrittenShard(shard, sha256, len(data), excluded)


def check_shard(root: Path, shard: Shard, spec_digest: str, shape: tuple[int, ...]) -> WrittenShard:
    """Reads a shard that an earlier run wrote, every byte of it.

    Raises:
        DataError: If it is missing, damaged, or belongs to another cache.
    """
    path = root / shard.file
    try:
        num_bytes = path.stat().st_size
        with safe_open(path, "pt") as file:
            about, feature_maps = json.loads(file.metadata()[METADATA_KEY]), file.get_tensor(KEY)
        excluded = {int(clip): why for clip, why in about["excluded"].items()}
        finished = WrittenShard(shard, about["sha256"], num_bytes, excluded)
        belongs = (about["recipe"], about["stop"]) == (spec_digest, shard.stop)
    except Exception as error:  # safetensors raises types of its own; metadata may be anyone's
        raise DataError(f"{path}: not a whole shard: {error}") from error
    if not belongs:
        raise DataError(f"{path}: a shard of another cache")
    if tuple(feature_maps.shape) != (len(finished.clips), shard.num_views, *shape):
        raise DataError(f"{path}: feature maps of another shape: {list(feature_maps.shape)}")
    if _sha256(feature_maps) != finished.sha256:
        raise DataError(f"{path}: its bytes are not those that were written")
    return finished


def open_shard(path: Path) -> Tensor:
    """The feature maps of a shard `[clips, views, C, T, H, W]`, memory-mapped.

    Raises:
        DataError: If the file cannot be opened.
    """
    try:
        with safe_open(path, "pt") as file:
            return file.get_tensor(KEY)
    except Exception as error:  # safetensors raises types of its own
        raise DataError(f"{path}: not a readable shard: {error}") from error


def _sha256(feature_maps: Tensor) -> str:
    octets = feature_maps.reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(octets.data).hexdigest()
