"""Feature spec: everything that a cache's feature maps depend on, stored in its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from taghead.data.annotations import Clip, Split
from taghead.errors import DataError, check_counts, first_line
from taghead.files import MAX_TEXT_BYTES, check_regular, config_differences, json_text, parse_json
from taghead.video.preprocessing import Preprocessing

MANIFEST_VERSION = 1
MANIFEST, BACKBONE, EXCLUDED = "manifest.json", "backbone.safetensors", "excluded.csv"

_TYPES = {"backbone": str, "weights_sha256": str, "num_views": int, "seed": int}

Dtype = Literal["float16", "bfloat16"]
Precision = Literal["32-true", "16-mixed", "bf16-mixed"]


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that the feature maps of a cache depend on, including the list of clips.

    Args:
        backbone: The backbone's name.
        weights_sha256: The `weights_digest` of its state dict.
        preprocessing: How videos become clips, as `Preprocessing.to_dict` gives it.
        reader: The decoding backend.
        precision: Precision of the backbone, in Lightning's names.
        dtype: The stored dtype.
        num_views: Views of a training clip: that of a test, and random ones as in training.
        seed: Seed of the random views.
        feature_shape: A feature map's (C, T, H, W).
        class_names: The classes, by number.
        clips: All listed clips, by split.
    """

    backbone: str
    weights_sha256: str
    preprocessing: Mapping[str, Any]
    reader: str
    precision: Precision
    dtype: Dtype
    num_views: int
    seed: int
    feature_shape: tuple[int, int, int, int]
    class_names: list[str]
    clips: Mapping[Split, Sequence[Clip]]

    def views(self, split: Split) -> int:
        """Views of each clip of a split; in the split `test`, those that a test averages over."""
        if split == "test":
            return Preprocessing.from_dict(self.preprocessing).num_views
        return self.num_views if split == "train" else 1

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON-serialisable values."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        clips = {split: [clip.to_dict() for clip in clips] for split, clips in self.clips.items()}
        return parse_json(json_text({**held, "clips": clips}, "the feature cache"))

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> FeatureSpec:
        """The inverse of `to_dict`; other keys are ignored.

        Raises:
            KeyError: If a key is missing.
            ValueError: If a value has another type.
        """
        values = {field.name: held[field.name] for field in fields(cls)}
        values["clips"] = {
            split: [Clip.from_dict(clip) for clip in clips]
            for split, clips in values["clips"].items()
        }
        values["feature_shape"] = tuple(values["feature_shape"])
        for name, kind in _TYPES.items():
            if type(values[name]) is not kind:
                raise ValueError(f"{name} must be of type {kind.__name__} (got {values[name]!r})")
        if len(values["feature_shape"]) != 4:
            raise ValueError(f"feature_shape must have 4 sizes (got {values['feature_shape']!r})")
        sizes = dict(zip("CTHW", values["feature_shape"], strict=True))
        check_counts(num_views=values["num_views"], **sizes)
        return cls(**values)

    def digest(self) -> str:
        """SHA-256 of the spec, which every shard of its cache stores."""
        return hashlib.sha256(
            json_text(self.to_dict(), "the feature cache", sort_keys=True).encode()
        ).hexdigest()

    def check_same(self, other: FeatureSpec, root: Path) -> None:
        """Checks that a requested spec equals this one, that of an existing cache.

        Raises:
            DataError: If not; the message names the first difference and both values.
        """
        found = config_differences(self.to_dict(), other.to_dict())
        for name, here, there in found:
            raise DataError(
                f"{root}: its features are made with {name} = {here!r}, asked for {there!r}; "
                f"choose another folder"
            )


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of a state dict: names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_cache_manifest(root: Path) -> dict[str, Any]:
    """The manifest of a finished or unfinished cache.

    Raises:
        DataError: If there is none, or it is invalid.
    """
    path = root / MANIFEST
    if path.exists() and not path.is_file():  # a pipe or a device need not end
        raise DataError(f"{path}: not a regular file")
    if path.exists():
        check_regular(path, MAX_TEXT_BYTES)
    try:
        manifest = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{root}: no feature cache: {MANIFEST} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: not a readable manifest: {first_line(error)}; delete this file and run "
            f"taghead extract again: whole shards are kept"
        ) from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != MANIFEST_VERSION:
        raise DataError(f"{path}: format must be {MANIFEST_VERSION} (got {found!r})")
    return manifest


def spec_of(manifest: Mapping[str, Any], root: Path) -> FeatureSpec:
    """The feature spec in a manifest.

    Raises:
        DataError: If there is none.
    """
    try:
        return FeatureSpec.from_dict(manifest)
    except Exception as error:  # a manifest may come from anywhere
        reason = f"{error!r}"[:300]
        raise DataError(f"{root / MANIFEST}: not a whole manifest: {reason}") from error
