"""Writer of a feature cache, shard by shard and resumable."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.filesize import decimal
from rich.progress import track
from safetensors.torch import save
from torch import Tensor

from taghead import __version__
from taghead.backbones import Backbone
from taghead.data.annotations import Split
from taghead.data.index.excluded import ExcludedClip, excluded_table
from taghead.errors import DataError
from taghead.features.feature_spec import (
    BACKBONE,
    EXCLUDED,
    MANIFEST,
    MANIFEST_VERSION,
    FeatureSpec,
    read_cache_manifest,
    spec_of,
)
from taghead.features.shards import (
    OtherCacheError,
    Shard,
    WrittenShard,
    check_shard,
    map_bytes,
    plan_shards,
    write_shard,
)
from taghead.files import atomic_file, json_text, remove_unfinished

LOCK_TIMEOUT_SEC = 5.0  # the reader processes of a killed command hold its lock so long at most


class CacheWriter:
    """The folder of a feature cache, locked for writing by one process.

    It is a context manager. On entering, shards of an earlier run are verified; damaged ones are
    written again.

    Args:
        root: The folder; created if missing.
        spec: The spec of the feature maps.
        shard_bytes: Maximum size of a shard; an unfinished cache keeps its own.

    Raises:
        DataError: On entering, if the folder holds anything else or a cache of another spec, or
            another process is writing it.
    """

    def __init__(self, root: str | Path, spec: FeatureSpec, shard_bytes: int) -> None:
        self.root = Path(root)
        self.spec = spec
        self.spec_digest = spec.digest()
        self.shard_bytes = shard_bytes
        self.shards: list[Shard] = []
        self.finished: dict[Shard, WrittenShard] = {}
        self.damaged: list[str] = []
        self._lock = FileLock(self.root / ".lock", timeout=LOCK_TIMEOUT_SEC)

    def __enter__(self) -> CacheWriter:
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise DataError(f"{self.root}: another process is writing it") from None
        try:
            self._examine()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    @property
    def missing(self) -> list[Shard]:
        """The shards that are not written yet."""
        return [shard for shard in self.shards if shard not in self.finished]

    @property
    def missing_bytes(self) -> int:
        """Bytes of the feature maps that are not written yet."""
        return sum(shard.num_maps for shard in self.missing) * map_bytes(self.spec.feature_shape)

    def begin(self, backbone: Backbone) -> None:
        """Writes the manifest and the backbone's weights, unless they are there.

        Raises:
            DataError: If the disk does not have the space that the cache takes.
        """
        weights = save({k: v.cpu().contiguous() for k, v in backbone.state_dict().items()})
        file = self.root / BACKBONE
        has_weights = file.is_file() and file.read_bytes() == weights
        needed = self.missing_bytes + (0 if has_weights else len(weights))
        free = shutil.disk_usage(self.root).free
        if needed > free:
            raise DataError(
                f"{self.root}: {decimal(needed)} must be free on its disk (got {decimal(free)})"
            )
        if self.missing:
            self._write_manifest(shards=None, counts=None)
        if not has_weights:
            with atomic_file(file) as partial:
                partial.write_bytes(weights)

    def add(self, shard: Shard, feature_maps: Tensor, excluded: Mapping[int, str]) -> None:
        """Writes a shard; the arguments are those of `write_shard`."""
        digest = self.spec_digest
        self.finished[shard] = write_shard(self.root, shard, digest, feature_maps, excluded)

    def finish(self) -> None:
        """Writes the list of excluded clips, if there are any, and the whole manifest.

        Raises:
            DataError: If no clip of a split could be read.
        """
        counts = {split: self.counts(split) for split in self.spec.clips}
        for split, count in counts.items():
            if count["num_used"] == 0:
                raise DataError(
                    f"{self.root}: none of the {count['num_listed']} {split} clips can be read: "
                    f"{self.excluded(split)[0].bare_reason}"
                )
        if any(count["num_excluded"] for count in counts.values()):
            table = excluded_table({split: self.excluded(split) for split in counts})
            with atomic_file(self.root / EXCLUDED) as partial:
                table.to_csv(partial, index=False)
        self._write_manifest(
            shards={split: self._entries(split) for split in counts}, counts=counts
        )

    def excluded(self, split: Split) -> list[ExcludedClip]:
        """The clips of a split that are excluded so far."""
        clips = self.spec.clips[split]
        done = [self.finished[s] for s in self.shards if s.split == split and s in self.finished]
        return [
            ExcludedClip.of(clips[number], reason)
            for finished in done
            for number, reason in finished.excluded.items()
        ]

    def counts(self, split: Split) -> dict[str, int]:
        """The numbers of listed, used and excluded clips of a split."""
        listed, excluded = len(self.spec.clips[split]), len(self.excluded(split))
        return {"num_listed": listed, "num_used": listed - excluded, "num_excluded": excluded}

    def _examine(self) -> None:
        """Reads the manifest and verifies the existing shards."""
        remove_unfinished(self.root)
        if (self.root / MANIFEST).exists():
            manifest = read_cache_manifest(self.root)
            spec_of(manifest, self.root).check_same(self.spec, self.root)
            self.shard_bytes = manifest["shard_bytes"]
        self.shards = list(plan_shards(self.spec, self.shard_bytes))
        self._check_own_files()
        there = [shard for shard in self.shards if (self.root / shard.file).exists()]
        console = Console(stderr=True)
        for shard in track(there, "Verifying", transient=True, console=console):
            try:
                self.finished[shard] = check_shard(
                    self.root, shard, self.spec_digest, self.spec.feature_shape
                )
            except DataError as error:
                if isinstance(error, OtherCacheError) and not (self.root / MANIFEST).exists():
                    raise DataError(f"{error}; choose another folder") from error
                self.damaged.append(str(error))

    def _check_own_files(self) -> None:
        """Without a manifest, all files must be named as those of this cache."""
        own = {*(shard.file for shard in self.shards), BACKBONE, EXCLUDED}
        visible = {path.name for path in self.root.iterdir() if not path.name.startswith(".")}
        if MANIFEST not in visible and not visible <= own:
            raise DataError(f"{self.root}: not empty and no feature cache; choose another folder")

    def _entries(self, split: Split) -> list[dict[str, Any]]:
        """The manifest's entries of a split's shards."""
        done = [self.finished[shard] for shard in self.shards if shard.split == split]
        return [
            {
                "file": finished.shard.file,
                "num_clips": len(finished.clips),
                "num_bytes": finished.num_bytes,
                "sha256": finished.sha256,
                "excluded": dict(finished.excluded),
            }
            for finished in done
        ]

    def _write_manifest(self, **progress: Any) -> None:
        manifest = {
            "format": MANIFEST_VERSION,
            "taghead": __version__,
            "shard_bytes": self.shard_bytes,
            **progress,
            **self.spec.to_dict(),
        }
        with atomic_file(self.root / MANIFEST) as partial:
            partial.write_text(
                json_text(manifest, self.root / MANIFEST, indent=1) + "\n", encoding="utf-8"
            )
