"""Feature cache: feature maps by clip and view, read from disk as they are asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from taghead.backbones import Backbone
from taghead.backbones.build import backbone_from_config
from taghead.data.annotations import Split
from taghead.data.dataset import LabelledDataset
from taghead.data.index.excluded import ExcludedClip
from taghead.data.seeding import SampleKey, index_and_randomness
from taghead.errors import DataError, first_line
from taghead.features.feature_spec import (
    BACKBONE,
    MANIFEST,
    FeatureSpec,
    read_cache_manifest,
    spec_of,
    weights_digest,
)
from taghead.features.shards import DTYPES, ShardReader
from taghead.video.preprocessing import Preprocessing


class FeatureCache:
    """The feature maps of a frozen backbone, as `taghead extract` wrote them.

    Args:
        root: The cache's folder.

    Raises:
        DataError: If the folder holds no finished cache, or a file of it is incomplete.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        manifest = read_cache_manifest(self.root)
        self.spec = spec_of(manifest, self.root)
        if not manifest.get("shards"):
            raise DataError(f"{self.root}: not finished: the same `taghead extract` resumes it")
        try:
            self.preprocessing = Preprocessing.from_dict(self.spec.preprocessing)
            self.splits = {
                split: FeatureSplit(self.root, self.spec, split, shards)
                for split, shards in manifest["shards"].items()
            }
        except DataError:
            raise
        except Exception as error:  # a manifest may come from anywhere
            reason = f"{error!r}"[:300]
            raise DataError(f"{self.root / MANIFEST}: not a whole manifest: {reason}") from error

    def verify(self) -> None:
        """Computes the checksum of every shard, unless this process has.

        Raises:
            DataError: If a shard is not the one that the manifest names.
        """
        for part in self.splits.values():
            for shard in part.shards:
                shard.verify()

    def backbone(self, built: Backbone | None = None) -> Backbone:
        """The backbone that computed the feature maps, with its weights.

        Args:
            built: One of its name to load the weights into. Without it one is built; a class of
                your own is taken only from a module that you named: a cache may come from anywhere.

        Raises:
            ValueError: If there is no such backbone.
            DataError: If its weights are not those that the manifest names.
        """
        path = self.root / BACKBONE
        if path.exists() and not path.is_file():  # a pipe or a device need not end
            raise DataError(f"{path}: not a regular file")
        backbone = built or backbone_from_config(self.spec.backbone)
        try:
            backbone.load_state_dict(load_file(path))
        except Exception as error:  # safetensors and torch raise types of their own
            reason = first_line(error)
            raise DataError(f"{path}: not the weights of {self.spec.backbone}: {reason}") from error
        self.check_weights(backbone.state_dict(), str(path))
        return backbone

    def check_weights(self, state: Mapping[str, Tensor], source: str) -> None:
        """Checks that a state dict is that of the backbone that computed the feature maps.

        Args:
            state: The state dict.
            source: Its name in the error message.

        Raises:
            DataError: If it is another backbone's.
        """
        found, wanted = weights_digest(state), self.spec.weights_sha256
        if found != wanted:
            raise DataError(
                f"{source}: not the backbone that made the features in {self.root}: "
                f"weights_sha256 is {found}, there {wanted}"
            )


class FeatureSplit:
    """The feature maps of one split.

    Args:
        root: The cache's folder.
        spec: The cache's spec.
        split: The split.
        shards: What the manifest says of its shards.

    Raises:
        DataError: If a shard is missing, has another size, or is not in the cache's folder.
    """

    def __init__(
        self, root: Path, spec: FeatureSpec, split: Split, shards: list[Mapping[str, Any]]
    ) -> None:
        self.shards: list[ShardReader] = []
        for shard in shards:
            name, path = shard["file"], root / shard["file"]
            if Path(name).name != name:
                raise DataError(f"{root / MANIFEST}: {name!r} is not in the cache's folder")
            size = path.stat().st_size if path.is_file() else None
            if size != shard["num_bytes"]:
                raise DataError(
                    f"{path}: must have {shard['num_bytes']} bytes, as {MANIFEST} says (got {size})"
                )
            shape = (shard["num_clips"], spec.views(split), *spec.feature_shape)
            self.shards.append(ShardReader(path, shard["sha256"], shape, DTYPES[spec.dtype]))
        self.num_views = spec.views(split)
        self.listed = list(spec.clips[split])
        reasons = {int(i): why for shard in shards for i, why in shard["excluded"].items()}
        self.clips = [clip for i, clip in enumerate(self.listed) if i not in reasons]
        self.excluded = [ExcludedClip.of(self.listed[i], why) for i, why in reasons.items()]
        self.first = [0]  # index, among the used clips, of each shard's first clip
        for shard in shards[:-1]:
            self.first.append(self.first[-1] + shard["num_clips"])

    def __len__(self) -> int:
        return len(self.clips)

    def views(self, index: int, views: slice = slice(None)) -> Tensor:
        """The feature maps of a clip's views `[views, C, T, H, W]`, in the stored type.

        Args:
            index: The clip's number among those used.
            views: Which ones, consecutive; all when not given.

        Raises:
            DataError: If their shard is not the one that the manifest names.
        """
        number = bisect_right(self.first, index) - 1
        return self.shards[number].views(index - self.first[number], views)


class FeatureDataset(LabelledDataset):
    """Torch dataset of feature maps, instead of clips.

    Args:
        split: The split of a feature cache.
        train: Whether each item is a random view of its clip; otherwise it is the first view, that
            of a test.
        views: Whether an item is all views of its clip, where there are several.

    Shapes:
        - **item** feature map `[C, T, H, W]` or views `[V, C, T, H, W]`, label, index of the clip
    """

    def __init__(self, split: FeatureSplit, train: bool = False, views: bool = False) -> None:
        super().__init__(split.clips)
        self.split = split
        self.train = train
        self.views = views

    def __getitem__(self, key: int | SampleKey) -> tuple[Tensor, int, int]:
        index, randomness = index_and_randomness(key)
        num_views, label = self.split.num_views, self.split.clips[index].label
        if self.views and num_views > 1:
            return self.split.views(index), label, index
        with randomness:
            view = int(torch.randint(num_views, ())) if self.train else 0
        return self.split.views(index, slice(view, view + 1))[0], label, index
