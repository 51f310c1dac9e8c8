"""Shards of a feature cache: files that hold the feature maps of consecutive clips of a split."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from taghead.data.annotations import Split
from taghead.errors import DataError
from taghead.features.feature_spec import MANIFEST, FeatureSpec
from taghead.files import atomic_file, json_text, parse_json

KEY = "feature_maps"
METADATA_KEY = "shard"  # one key: safetensors writes several in no fixed order
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16}  # as safetensors names them
_VERIFIED: dict[tuple[Path, str, int, int, int], int] = {}  # files as they were: where maps begin


@dataclass(frozen=True)
class Shard:
    """The clips of a shard: consecutive ones of a split.

    Args:
        split: The split of its clips.
        start: Index of its first clip in the list of the split.
        stop: Index of its last clip, plus 1.
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
        """The number of its feature maps if no clip is excluded."""
        return (self.stop - self.start) * self.num_views


@dataclass(frozen=True)
class WrittenShard:
    """A shard on disk.

    Args:
        shard: Its clips.
        sha256: Digest of the bytes of its feature maps.
        num_bytes: Size of the file.
        excluded: The reason of each excluded clip, by the clip's index in the list.
    """

    shard: Shard
    sha256: str
    num_bytes: int
    excluded: Mapping[int, str]

    @property
    def clips(self) -> list[int]:
        """Indices of the clips that it holds, in order."""
        return [i for i in range(self.shard.start, self.shard.stop) if i not in self.excluded]


def plan_shards(spec: FeatureSpec, max_bytes: int) -> Iterator[Shard]:
    """All shards of a cache: as many clips in each as fit into `max_bytes`, at least one."""
    for split, clips in spec.clips.items():
        views = spec.views(split)
        size = max(1, max_bytes // (views * map_bytes(spec.feature_shape)))
        for start in range(0, len(clips), size):
            yield Shard(split, start, min(start + size, len(clips)), views)


def map_bytes(feature_shape: tuple[int, ...]) -> int:
    """Bytes of one feature map in float16 or bfloat16."""
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
    """Writes a shard atomically.

    Args:
        root: The cache's folder.
        shard: The shard.
        spec_digest: The digest of the cache's spec.
        feature_maps: The feature maps of the clips that are not excluded.
        excluded: The reason of each excluded clip, by its index in the list.

    Shapes:
        - **feature_maps** `[clips, views, C, T, H, W]`
    """
    sha256 = _sha256(feature_maps)
    about = {"recipe": spec_digest, "sha256": sha256, "stop": shard.stop, "excluded": excluded}
    data = save({KEY: feature_maps}, {METADATA_KEY: json_text(about, root / shard.file)})
    with atomic_file(root / shard.file) as partial:
        partial.write_bytes(data)
    return WrittenShard(shard, sha256, len(data), excluded)


class OtherCacheError(DataError):
    """A shard of a cache of another spec."""


def check_shard(root: Path, shard: Shard, spec_digest: str, shape: tuple[int, ...]) -> WrittenShard:
    """Reads and verifies a shard that an earlier run wrote.

    Raises:
        DataError: If it is missing or damaged.
        OtherCacheError: If it belongs to another cache.
    """
    path = root / shard.file
    try:
        num_bytes = path.stat().st_size
        with safe_open(path, "pt") as file:
            about, feature_maps = parse_json(file.metadata()[METADATA_KEY]), file.get_tensor(KEY)
        excluded = {int(clip): why for clip, why in about["excluded"].items()}
        finished = WrittenShard(shard, about["sha256"], num_bytes, excluded)
        belongs = (about["recipe"], about["stop"]) == (spec_digest, shard.stop)
    except Exception as error:  # safetensors raises types of its own; metadata may be anyone's
        raise DataError(f"{path}: not a complete shard: {error}") from error
    if not belongs:
        raise OtherCacheError(f"{path}: a shard of another cache")
    if tuple(feature_maps.shape) != (len(finished.clips), shard.num_views, *shape):
        raise DataError(f"{path}: feature maps of another shape: {list(feature_maps.shape)}")
    if _sha256(feature_maps) != finished.sha256:
        raise DataError(f"{path}: its bytes are not those that were written")
    return finished


class ShardReader:
    """A shard whose bytes are those that the manifest names.

    They are read, not memory-mapped: a file that is cut meanwhile is an error, where a map would
    end the process. The checksum is computed at the first read of a file in a process, and again
    if the file changes.

    Args:
        path: The file.
        sha256: Digest of the bytes of its feature maps.
        shape: Its shape (clips, views, C, T, H, W).
        dtype: What its feature maps are stored in.

    Raises:
        DataError: From :meth:`views`, if the file is missing, damaged, cut or another one.
    """

    def __init__(self, path: Path, sha256: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.path = path
        self.sha256 = sha256
        self.shape = shape
        self.dtype = dtype

    def views(self, index: int, views: slice = slice(None)) -> Tensor:
        """The feature maps of a clip's views `[views, C, T, H, W]`, or of consecutive ones."""
        first, stop, _ = views.indices(self.shape[1])
        of_map = prod(self.shape[2:]) * self.dtype.itemsize
        with self._opened() as (file, begin):  # whose size is that of the shape
            maps = torch.empty((stop - first, *self.shape[2:]), dtype=self.dtype)
            octets = maps.reshape(-1).view(torch.uint8).numpy()  # the same memory
            file.seek(begin + (index * self.shape[1] + first) * of_map)
            if file.readinto(octets.data) != len(octets):
                raise DataError(f"{self.path}: not a whole shard: it ends within clip {index}")
        return maps

    def verify(self) -> None:
        """Computes the checksum, unless this process has of the file as it is.

        Raises:
            DataError: As :meth:`views` does.
        """
        with self._opened():
            pass

    @contextmanager
    def _opened(self) -> Iterator[tuple[BufferedReader, int]]:
        """The file, and where the feature maps begin in it."""
        try:
            with self.path.open("rb") as file:
                yield file, self._verified(file)
        except OSError as error:
            raise DataError(f"{self.path}: not a readable shard: {error.strerror}") from error

    def _verified(self, file: BufferedReader) -> int:
        """Where the feature maps begin in the file, after their checksum is compared."""
        stat = os.fstat(file.fileno())
        key = (self.path, self.sha256, stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if key not in _VERIFIED:
            begin = self._begin(file, stat.st_size)
            file.seek(begin)
            if hashlib.file_digest(file, "sha256").hexdigest() != self.sha256:
                raise DataError(
                    f"{self.path}: its bytes are not those that {MANIFEST} names: damaged, or "
                    f"another cache's; the same `taghead extract` writes it again"
                )
            _VERIFIED[key] = begin
        return _VERIFIED[key]

    def _begin(self, file: BufferedReader, num_bytes: int) -> int:
        """Where the feature maps begin, by the file's header, which must be of this shard."""
        length = int.from_bytes(file.read(8), "little")
        try:
            entry = parse_json(file.read(min(length, num_bytes)))[KEY]
            found = _DTYPES.get(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.path}: not a whole shard: {error!r}") from error
        size = prod(self.shape) * self.dtype.itemsize
        if found != (self.dtype, self.shape, [0, size]) or 8 + length + size != num_bytes:
            raise DataError(
                f"{self.path}: must hold feature maps {list(self.shape)} in {self.dtype} and "
                f"nothing else (got {list(found[1])} in {found[0]}, {num_bytes} bytes)"
            )
        return 8 + length


def _sha256(feature_maps: Tensor) -> str:
    octets = feature_maps.reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(octets.data).hexdigest()
