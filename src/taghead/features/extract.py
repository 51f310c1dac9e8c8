"""The command `taghead extract`: writes the feature cache of a dataset."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import yaml
from rich.console import Console
from rich.filesize import decimal
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from taghead.backbones import Backbone, build_backbone
from taghead.data.annotations import Clip, Split
from taghead.data.datamodule import VideoDataModule
from taghead.errors import DataError, check_choices, check_counts
from taghead.features.cache import FeatureCache
from taghead.features.feature_spec import Dtype, FeatureSpec, Precision, weights_digest
from taghead.features.frozen_backbone import FrozenBackbone
from taghead.features.shards import map_bytes
from taghead.features.view_dataset import ViewDataset, ViewKey, view_loader
from taghead.features.writer import CacheWriter
from taghead.files import MAX_TEXT_BYTES, check_regular
from taghead.model.pretrained import as_device, load_model

log = logging.getLogger(__name__)

MEGABYTE = 10**6


def extract(
    output: str,
    data: VideoDataModule,
    backbone: str | None = None,
    backbone_weights: str | None = None,
    model: str | None = None,
    num_views: int = 1,
    dtype: Dtype = "float16",
    seed: int = 0,
    device: str = "auto",
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed"] = "auto",
    shard_size: int = 256,
) -> None:
    """Writes a frozen backbone's feature maps of a dataset, on which heads then train.

    The same command resumes a cache that is not finished.

    Args:
        output: The cache's folder.
        data: The dataset: all of its splits, its preprocessing, batch size and workers.
        backbone: The backbone's name, or the class path of one of your own.
        backbone_weights: A file with its weights, or the name of published ones.
        model: A training checkpoint or a folder of `save_pretrained`, to take the backbone from
            instead.
        num_views: Views of each training clip: that of a test, and random ones as in training.
        dtype: The stored dtype; bfloat16 has a larger range and less precision.
        seed: Seed of the random views.
        device: Where the backbone runs: `auto`, `cpu`, `cuda`, ...
        precision: The backbone's precision; `auto` is mixed with `dtype` on a GPU, else 32-true.
        shard_size: Maximum size of a file in megabytes.

    Raises:
        ValueError: If an argument breaks its rule.
        DataError: If the data or the folder cannot be used as asked.
    """
    if data.features is not None:
        raise ValueError(f"data must give videos (got the feature cache {data.features.root})")
    network = _chosen_backbone(backbone, backbone_weights, model, data)
    cache = write_features(
        output, network, data, num_views, dtype, seed, device, precision, shard_size
    )
    for name, split in cache.splits.items():
        print(f"{name}: {len(split.clips)} of {len(split.listed)} clips")
    print(
        f"train on it: taghead fit --data=taghead.features.FeatureDataModule --data.root={output}"
    )


def write_features(
    output: str | Path,
    backbone: Backbone,
    data: VideoDataModule,
    num_views: int = 1,
    dtype: Dtype = "float16",
    seed: int = 0,
    device: str = "auto",
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed"] = "auto",
    shard_size: int = 256,
) -> FeatureCache:
    """Writes or completes the feature cache of a dataset.

    Args:
        output: The cache's folder.
        backbone: The backbone; it is set to evaluation and moved to the device.
        data: The dataset.
        num_views: As in `extract`, as are the following arguments.

    Raises:
        ValueError: If an argument breaks its rule.
        VideoError: If a clip cannot be read and the data's `on_error` is raise.
        DataError: If the data or the folder cannot be used as asked.
    """
    check_counts(num_views=num_views, shard_size=shard_size)
    check_choices(
        dtype=(dtype, get_args(Dtype)), precision=(precision, ("auto", *get_args(Precision)))
    )
    device = as_device(device)
    if precision == "auto":
        mixed: Precision = "16-mixed" if dtype == "float16" else "bf16-mixed"
        precision = mixed if torch.device(device).type == "cuda" else "32-true"
    data.prepare_data()
    spec = make_spec(backbone, data, num_views, dtype, seed, precision)
    with CacheWriter(output, spec, shard_size * MEGABYTE) as writer:
        for message in writer.damaged:
            log.warning("%s; it is written again", message)
        _announce(writer)
        unreadable = _unreadable(data, writer)
        writer.begin(backbone)
        frozen = FrozenBackbone(backbone, spec, device, data.batch_size, data.on_error)
        _fill(writer, frozen, data, unreadable)
        writer.finish()
    return FeatureCache(output)


def make_spec(
    backbone: Backbone,
    data: VideoDataModule,
    num_views: int,
    dtype: Dtype,
    seed: int,
    precision: Precision,
) -> FeatureSpec:
    """The feature spec of a dataset; the arguments are those of `write_features`."""
    preprocessing = data.preprocessing
    grid = backbone.grid(preprocessing.num_frames, preprocessing.crop)
    # a cache outlives the working directory
    clips: dict[Split, list[Clip]] = {
        split: [replace(clip, path=clip.path.absolute()) for clip in listed]
        for split, listed in data.listed.items()
    }
    return FeatureSpec(
        backbone=backbone.to_config(),
        weights_sha256=weights_digest(backbone.state_dict()),
        preprocessing=preprocessing.to_dict(),
        reader="pyav",
        precision=precision,
        dtype=dtype,
        num_views=num_views,
        seed=seed,
        feature_shape=(backbone.channels, grid.frames, grid.height, grid.width),
        class_names=data.class_names,
        clips=clips,
    )


def _fill(
    writer: CacheWriter,
    frozen: FrozenBackbone,
    data: VideoDataModule,
    unreadable: Mapping[ViewKey, str],
) -> None:
    """Writes the shards that are missing."""
    spec, missing = writer.spec, writer.missing
    dataset = ViewDataset(
        spec.clips, data.preprocessing, spec.num_views, spec.seed, unreadable, data.surveys
    )
    pin = frozen.device.type == "cuda"
    loader = view_loader(dataset, missing, data.batch_size, data.num_workers, pin, data.timeout_sec)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("Extracting", total=sum(shard.num_maps for shard in missing))
        batches = iter(loader)
        for shard in missing:
            writer.add(shard, *frozen.shard(shard, batches, partial(bar.advance, task)))


def _announce(writer: CacheWriter) -> None:
    """Prints the disk space that the cache needs, before anything is computed."""
    spec = writer.spec
    size = "x".join(map(str, spec.feature_shape))
    num_maps = sum(shard.num_maps for shard in writer.shards)
    num_bytes = num_maps * map_bytes(spec.feature_shape)
    print(
        f"{writer.root}: {num_maps} feature maps of {size} in {spec.dtype} take "
        f"{decimal(num_bytes)} ({num_bytes} bytes)"
    )
    if writer.finished:
        print(
            f"{len(writer.finished)} of {len(writer.shards)} files are there and whole; "
            f"{decimal(writer.missing_bytes)} are missing"
        )


def options_from_fit(config: str | Path) -> dict[str, Any]:
    """The arguments of `extract` in a config of `fit`: its data and its backbone.

    Raises:
        DataError: If the file is not a config of `fit`.
    """
    if Path(config).exists():
        check_regular(config, MAX_TEXT_BYTES)
    try:
        held = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{config}: no such config") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{config}: not a readable config: {reason}") from error
    if not isinstance(held, dict) or not isinstance(held.get("data"), dict):
        raise DataError(f"{config}: not a config of fit: it must hold data and model")
    model = held.get("model") or {}
    names = [name for name in ("backbone", "backbone_weights") if name in model]
    return {"data": held["data"], **{name: model[name] for name in names}}


def _unreadable(data: VideoDataModule, writer: CacheWriter) -> dict[ViewKey, str]:
    """The clips of missing shards that are known to be unreadable, with the reason.

    Raises:
        DataError: If there is one and `on_error` is raise, or an earlier run excluded one.
    """
    if data.on_error == "raise":
        for split in writer.spec.clips:
            for bad in writer.excluded(split):
                raise DataError(
                    f"{writer.root}: was begun without a clip, but on_error is raise: {bad.reason}"
                )
    found: dict[ViewKey, str] = {}
    for split in {shard.split: None for shard in writer.missing}:
        data.choose(split)
        reasons = {bad.clip: bad.bare_reason for bad in data.excluded[split]}
        for number, clip in enumerate(data.listed[split]):
            if clip in reasons:
                found[split, number] = reasons[clip]
    return found


def _chosen_backbone(
    name: str | None, weights: str | None, model: str | None, data: VideoDataModule
) -> Backbone:
    """The backbone of a model, or one by name with weights."""
    if model is None:
        if name is None or weights is None:
            raise ValueError(
                f"backbone and backbone_weights, or model, must be given: a frozen backbone needs "
                f"trained weights (got backbone {name!r}, backbone_weights {weights!r})"
            )
        return build_backbone(name, weights)
    if weights is not None:
        raise ValueError(
            f"backbone_weights must not be given with model, which has its own (got {weights!r})"
        )
    classifier = load_model(model)
    if name not in (None, classifier.backbone.to_config()):
        raise ValueError(
            f"backbone must be that of {model}, {classifier.backbone.to_config()} (got {name!r})"
        )
    if classifier.preprocessing != data.preprocessing:
        log.warning(
            "%s was trained on other clips: %s; the features are of %s",
            *(model, classifier.preprocessing, data.preprocessing),
        )
    return classifier.backbone
