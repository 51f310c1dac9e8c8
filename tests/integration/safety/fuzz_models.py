"""Fuzz targets: models, checkpoints, caches, manifests, sweeps and class paths."""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa
import pyarrow.dataset  # which looks for optional packages when it is imported
import torch
from fuzz_watch import SEPARATOR, Target, as_json, check_refused, merged, parts
from optuna.trial import TrialState, create_trial
from pyarrow import parquet

from taghead import TAGHead, VideoClassifier
from taghead.backbones import build_backbone
from taghead.backbones.build import BACKBONES, backbone_from_config
from taghead.class_paths import check_plain_options, import_class, is_allowed
from taghead.data.annotations import Clip
from taghead.data.index.manifest import read_manifest
from taghead.errors import DataError
from taghead.features.cache import FeatureCache
from taghead.features.feature_spec import MANIFEST_VERSION, FeatureSpec
from taghead.features.shards import Shard, check_shard, write_shard
from taghead.files import read_tensors, state_dict_in
from taghead.sweep.spec import read_sweep
from taghead.sweep.store import Store
from taghead.training.checkpoints import read_checkpoint
from taghead.training.lightning_cli import check_states
from taghead.video import Preprocessing

MAX_SIZE = 64  # of a number in a model's config: what larger ones take is bounded elsewhere
torch.set_num_threads(1)


def manifest(data: bytes, folder: Path) -> None:
    """A manifest: the metadata and the columns as JSON, or the whole file."""
    path = folder / "manifest.parquet"
    description, _, columns = data.partition(SEPARATOR)
    table = as_json(columns)
    if not isinstance(table, dict):
        path.write_bytes(data)
    else:
        try:
            made = pa.table(table).replace_schema_metadata({b"taghead": description})
            parquet.write_table(made, path)
        except (ValueError, TypeError, pa.ArrowException):  # no table at all
            path.write_bytes(data)
    found = read_manifest(path)
    for key, result in found.known.items():
        assert result.key == key
    json.dumps(found.description["written_by"]), found.description["root"]


SPEC = {
    "backbone": "r2plus1d_tiny",
    "weights_sha256": "0" * 64,
    "preprocessing": {"num_frames": 8, "resize": 36, "crop": 32},
    "reader": "pyav",
    "precision": "32-true",
    "dtype": "float16",
    "num_views": 1,
    "seed": 0,
    "feature_shape": [2, 1, 1, 1],
    "class_names": ["a", "b"],
    "clips": {"train": [Clip(Path(f"{i}.mp4"), i % 2, "ab"[i % 2]).to_dict() for i in range(3)]},
}


@cache
def sample_shard() -> tuple[dict[str, Any], bytes]:
    """The manifest and the shard of a small feature cache."""
    folder = Path("cache")
    spec = FeatureSpec.from_dict(SPEC)
    shard = Shard("train", 0, 3, 1)
    maps = torch.arange(6, dtype=torch.float16).reshape(3, 1, 2, 1, 1, 1)
    done = write_shard(folder, shard, spec.digest(), maps, {})
    entry = {"file": shard.file, "num_clips": 3, "num_bytes": done.num_bytes}
    entry |= {"sha256": done.sha256, "excluded": {}}
    whole = {"format": MANIFEST_VERSION, **spec.to_dict(), "shards": {"train": [entry]}}
    return whole, (folder / shard.file).read_bytes()


def features(data: bytes, folder: Path) -> None:
    """A feature cache: entries of its manifest as JSON, or the manifest; and a shard."""
    text, octets = parts(data, 2)
    whole, shard = sample_shard()
    over, octets = as_json(text), octets or shard
    file = "train-0000000.safetensors"
    (folder / file).write_bytes(octets)
    if isinstance(over, dict):
        entry = {**whole["shards"]["train"][0], "num_bytes": len(octets)}
        entry["sha256"] = hashlib.sha256(octets[8 + int.from_bytes(octets[:8], "little") :])
        entry["sha256"] = entry["sha256"].hexdigest()
        whole = {**whole, "shards": {"train": [entry]}}
        text = json.dumps(merged(whole, over)).encode()
    (folder / "manifest.json").write_bytes(text)
    spec = FeatureSpec.from_dict(SPEC)
    check_refused(
        lambda: check_shard(folder, Shard("train", 0, 3, 1), spec.digest(), (2, 1, 1, 1)),
        (DataError,),
    )
    cache = FeatureCache(folder)
    if cache.spec.backbone not in BACKBONES:
        check_refused(cache.backbone, (DataError, ValueError))
    for part in cache.splits.values():
        for index in range(min(len(part), 4)):
            check_refused(lambda p=part, i=index: p.views(i), (DataError,))
    cache.verify()


def sweep(data: bytes, folder: Path) -> None:
    """A sweep file and its base, and the attributes of trials in a store."""
    text, base, stored = parts(data, 3)
    (folder / "sweep.yaml").write_bytes(text)
    (folder / "base.yaml").write_bytes(base)
    spec = read_sweep(folder / "sweep.yaml")
    number = len(spec.seeds)
    for levels in spec.factors.values():
        number *= len(levels)
    if number > 64 or spec.base.get("trainer") is None:
        return
    runs = spec.runs()
    attributes = as_json(stored)
    if not isinstance(attributes, list) or not runs:
        return
    store = sample_store()
    store.enqueue(list(spec.factors), runs[:1])
    for each in attributes[:4]:
        if isinstance(each, dict):
            known = store.trials()[0].user_attrs
            held = {**known, **each}
            if isinstance(held.get("config"), dict):
                held["config"] = json.dumps(held["config"])
            state = TrialState.FAIL if "error" in held else TrialState.WAITING
            store.study.add_trial(create_trial(state=state, user_attrs=held))
    check_refused(lambda: store.write_tables(folder / "tables"), (DataError,))
    done: list[Any] = []
    for _ in range(len(attributes) + 2):
        check_refused(
            lambda: store.run_next("w", done.append, {}, {run.id: run.config for run in runs}),
            (DataError,),
        )
    assert all(config == runs[0].config for config in done)
    store.check(spec, runs)


def sample_store() -> Store:
    """A store in memory."""
    store = Store.__new__(Store)
    store.url, store.name, store._lock = "sqlite:///a.db", "a", nullcontext()
    store.study = optuna.create_study(direction="maximize")
    return store


@cache
def sample_model() -> tuple[dict[str, Any], bytes]:
    """The config and the weights of a small model."""
    backbone = build_backbone("r2plus1d_tiny")
    head = TAGHead(backbone.channels, 3, (2, 4, 4), channels=8, encoder_layers=0)
    model = VideoClassifier(backbone, head, list("abc"), Preprocessing(8, 36, 32))
    model.save_pretrained("model")
    config = json.loads(Path("model/config.json").read_text())
    return config, Path("model/model.safetensors").read_bytes()


def model(data: bytes, folder: Path) -> None:
    """A folder of a saved model: entries of its config as JSON, or the config; and weights."""
    text, octets = parts(data, 2)
    whole, weights = sample_model()
    over = as_json(text)
    if largest(over) > MAX_SIZE:
        return
    text = json.dumps(merged(whole, over)).encode() if isinstance(over, dict) else text
    (folder / "config.json").write_bytes(text)
    (folder / "model.safetensors").write_bytes(octets or weights)
    VideoClassifier.from_pretrained(folder)


def largest(value: Any) -> float:
    """The largest number in nested mappings and lists."""
    if isinstance(value, dict):
        return max(map(largest, value.values()), default=0)
    if isinstance(value, list):
        return max(map(largest, value), default=0)
    return abs(value) if isinstance(value, int | float) and value == value else 0


def checkpoint(data: bytes, folder: Path) -> None:
    """A checkpoint: the pickle in its archive, or the whole file."""
    path = folder / "a.ckpt"
    if data[:1] == b"\x80":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", data)
            archive.writestr("a/byteorder", "little")
            archive.writestr("a/version", "3\n")
            archive.writestr("a/data/0", bytes(16))
    else:
        path.write_bytes(data)
    for read in (lambda: read_checkpoint(path), lambda: VideoClassifier.from_checkpoint(path)):
        check_refused(read, (DataError,))
    content = read_tensors(path)
    check_refused(lambda: state_dict_in(content, path), (DataError,))
    if isinstance(content, dict):
        check_states(path)


def class_paths(data: bytes, folder: Path) -> None:
    """A class path, and the options of its class."""
    path, options = parts(data, 2)
    text = path.decode("utf-8", "replace")
    module = text.rpartition(".")[0]
    if is_allowed(text) and module not in sys.modules:
        return  # of a package of this field: importing it is fine, and slow
    for base in (torch.nn.Module, dict):
        check_refused(lambda b=base: import_class(text, b), (ValueError,))
    if text not in BACKBONES:
        check_refused(lambda: backbone_from_config(text), (ValueError,))
    check_plain_options(as_json(options))


TARGETS = {
    "manifest": Target(manifest, max_len=8192),
    "features": Target(features, (DataError, ValueError), prepare=sample_shard),
    "sweep": Target(sweep),
    "model": Target(model, prepare=sample_model),
    "checkpoint": Target(checkpoint),
    "class_paths": Target(class_paths, (ValueError,), 512),
}
