"""A cache is the same whatever happens while it is written, and is never mixed with another."""

import multiprocessing
import os
import shutil
import signal
import time
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from killed import all_ended, killed_while_reading
from safetensors import safe_open
from torch import nn

from taghead.backbones import Backbone, build_backbone
from taghead.data import SynthGym, VideoDataModule
from taghead.errors import DataError, VideoError
from taghead.features import FeatureCache, cache_bytes
from taghead.features.extract import write_features
from taghead.features.feature_spec import weights_digest
from taghead.features.writer import CacheWriter
from taghead.video import Preprocessing

SMALL = Preprocessing(num_frames=8, resize=36, crop=32, flip=0.5)
DataOf = Callable[..., SynthGym]


def files_of(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(root.iterdir())}


@pytest.fixture
def tiny_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of a few clips."""
    monkeypatch.setattr("taghead.features.extract.MEGABYTE", 160)  # 256 of them a file


def killed(root: Path, write: Callable[[], object], num_shards: int) -> None:
    """Writes in another process, and kills that once so many shards are there."""
    process = multiprocessing.get_context("fork").Process(target=write)
    process.start()
    while len(list(root.glob("[!.]*-*.safetensors"))) < num_shards:
        assert process.is_alive()
        time.sleep(0.001)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.usefixtures("tiny_shards")
def test_killed_at_any_moment_it_ends_the_same(
    backbone: Backbone, data_of: DataOf, tmp_path: Path
) -> None:
    def write(root: Path) -> FeatureCache:
        return write_features(root, backbone, data_of(), num_views=2)

    write(tmp_path / "whole")
    whole = files_of(tmp_path / "whole")
    assert len(whole) > 12
    for stop in (0, 4, len(whole) - 4):
        root = tmp_path / f"killed{stop}"
        root.mkdir()
        killed(root, lambda root=root: write(root), stop)
        with pytest.raises(DataError, match=r"not finished|no feature cache"):
            FeatureCache(root)
        written = {path: path.stat().st_mtime_ns for path in root.glob("[!.]*-*.safetensors")}
        write(root)
        assert files_of(root) == whole
        assert all(path.stat().st_mtime_ns == when for path, when in written.items())


@pytest.mark.usefixtures("tiny_shards")
def test_a_torn_manifest_is_deleted_and_whole_shards_are_kept(
    backbone: Backbone, data_of: DataOf, tmp_path: Path
) -> None:
    root = tmp_path / "features"
    write_features(root, backbone, data_of())
    whole = files_of(root)
    manifest = root / "manifest.json"
    manifest.write_bytes(whole["manifest.json"][:-100])
    told = rf"^{manifest}: not a readable manifest: .*; delete this file and run taghead extract ag"
    with pytest.raises(DataError, match=told):
        write_features(root, backbone, data_of())
    manifest.unlink()
    other = data_of(preprocessing=replace(data_of().preprocessing, resize=40))
    with pytest.raises(DataError, match=r"a shard of another cache; choose another folder$"):
        write_features(root, backbone, other)
    shards = sorted(root.glob("*-*.safetensors"))
    shards[0].write_bytes(whole[shards[0].name][:-100])
    when = {path: path.stat().st_mtime_ns for path in shards[1:]}
    write_features(root, backbone, data_of())
    assert files_of(root) == whole
    assert {path: path.stat().st_mtime_ns for path in when} == when


@pytest.mark.usefixtures("tiny_shards")
def test_shards_that_were_damaged_are_written_anew(
    backbone: Backbone, data_of: DataOf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "features"
    data = data_of(num_workers=2)
    write_features(root, backbone, data)
    whole = files_of(root)
    shards = sorted(root.glob("train-*"))
    shards[0].write_bytes(whole[shards[0].name][:-100])
    flipped = bytearray(whole[shards[1].name])
    flipped[-1] ^= 1
    shards[1].write_bytes(flipped)
    shards[2].write_text("hello")
    shutil.copy(shards[4], shards[3])
    (root / "backbone.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match=rf"{shards[0]}: must have \d+ bytes"):
        FeatureCache(root)
    write_features(root, backbone, data)
    assert files_of(root) == whole
    whys = (
        "not a complete shard",
        "its bytes are not",
        "not a complete shard",
        "a shard of another",
    )
    for shard, why in zip(shards, whys, strict=False):
        assert f"{shard}: {why}" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "r3d_18"}, "backbone = 'r2plus1d_tiny', asked for 'r3d_18'"),
        ({"weights_sha256": "abc"}, r"weights_sha256 = '\w{64}', asked for 'abc'"),
        ({"reader": "decord"}, "reader = 'pyav', asked for 'decord'"),
        ({"dtype": "bfloat16"}, "dtype = 'float16', asked for 'bfloat16'"),
        ({"precision": "16-mixed"}, "precision = '32-true', asked for '16-mixed'"),
        ({"num_views": 4}, "num_views = 3, asked for 4"),
        ({"seed": 1}, "seed = 0, asked for 1"),
    ],
)
def test_a_cache_of_another_recipe_is_left_alone(
    stored: FeatureCache, change: dict[str, Any], message: str
) -> None:
    whole = files_of(stored.root)
    with pytest.raises(DataError, match=f"^{stored.root}: its features are made with {message}"):
        CacheWriter(stored.root, replace(stored.spec, **change), 100).__enter__()
    assert files_of(stored.root) == whole


def test_a_cache_of_other_clips_or_another_transform_is_left_alone(
    stored: FeatureCache, backbone: Backbone, data_of: DataOf
) -> None:
    preprocessing = replace(data_of().preprocessing, crop=24)
    with pytest.raises(DataError, match=r"made with preprocessing.crop = 32, asked for 24"):
        write_features(stored.root, backbone, data_of(preprocessing=preprocessing), num_views=3)
    spec = stored.spec
    shorter = replace(spec, clips={**spec.clips, "val": spec.clips["val"][:17]})
    with pytest.raises(DataError, match=r"made with length of clips.val = 18, asked for 17"):
        CacheWriter(stored.root, shorter, 100).__enter__()
    turned = replace(spec, clips={**spec.clips, "val": spec.clips["val"][::-1]})
    with pytest.raises(DataError, match=r"made with clips.val\[0\].path = '.*', asked for '.*'"):
        CacheWriter(stored.root, turned, 100).__enter__()


def test_other_weights_under_the_same_name_are_refused(
    stored: FeatureCache, backbone: Backbone, data_of: DataOf
) -> None:
    with pytest.raises(DataError, match=r"made with weights_sha256 = "):
        write_features(stored.root, build_backbone("r2plus1d_tiny"), data_of(), num_views=3)


def test_a_folder_with_anything_else_is_left_alone(stored: FeatureCache, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"not empty and no feature cache; choose another"):
        CacheWriter(tmp_path, stored.spec, 100).__enter__()


def test_one_writer_at_a_time(stored: FeatureCache) -> None:
    with CacheWriter(stored.root, stored.spec, 100):
        with pytest.raises(DataError, match=rf"^{stored.root}: another process is writing it$"):
            CacheWriter(stored.root, stored.spec, 100).__enter__()
    with CacheWriter(stored.root, stored.spec, 100) as writer:
        assert not writer.missing


@pytest.fixture
def copy(dataset: Path, tmp_path: Path) -> Path:
    return shutil.copytree(dataset, tmp_path / "clips")


def clip_of(root: Path, split: str, row: int) -> Path:
    clip = pd.read_csv(root / f"{split}.csv").iloc[row]
    return root / "videos" / clip["Class"] / clip["FileName"]


@pytest.mark.usefixtures("tiny_shards")
def test_clips_that_cannot_be_read_are_left_out_and_counted(
    backbone: Backbone, data_of: DataOf, stored: FeatureCache, copy: Path, tmp_path: Path
) -> None:
    half, text = clip_of(copy, "train", 7), clip_of(copy, "val", 17)
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    text.write_text("no video")
    root = tmp_path / "features"
    with pytest.raises(VideoError, match=f"^{half}: truncated"):
        write_features(root, backbone, data_of(root=str(copy)), num_views=3)
    data = data_of(root=str(copy), on_error="exclude")
    found = write_features(root, backbone, data, num_views=3)
    counts = {split: (len(part.clips), len(part.listed)) for split, part in found.splits.items()}
    assert counts == {"train": (35, 36), "val": (17, 18), "test": (18, 18)}
    table = pd.read_csv(root / "excluded.csv")
    assert table["path"].tolist() == [str(half), str(text)]
    assert table["split"].tolist() == ["train", "val"]
    assert table["reason"].str.startswith(("truncated", "cannot be opened")).all()
    part, whole = found.splits["train"], stored.splits["train"]
    for place, number in enumerate(number for number in range(36) if number != 7):
        torch.testing.assert_close(part.views(place)[0], whole.views(number)[0])
        assert part.clips[place].label == whole.clips[number].label
    with pytest.raises(DataError, match=rf"begun without a clip, but on_error is raise: {half}"):
        write_features(root, backbone, data_of(root=str(copy)), num_views=3)


def test_missing_clips_stop_before_anything_is_computed(
    backbone: Backbone, copy: Path, tmp_path: Path
) -> None:
    gone = clip_of(copy, "test", 3)
    gone.rename(tmp_path / "gone.mp4")
    files = {split: str(copy / f"{split}.csv") for split in ("train", "test")}
    data = VideoDataModule(str(copy / "videos"), **files, preprocessing=SMALL, num_workers=0)
    with pytest.raises(DataError, match=rf"^{gone}: no such video file, listed in {copy}"):
        write_features(tmp_path / "features", backbone, data)
    assert not list((tmp_path / "features").glob("*.safetensors"))
    (tmp_path / "gone.mp4").rename(gone)
    write_features(tmp_path / "features", backbone, data)
    gone.unlink()
    write_features(tmp_path / "features", backbone, data)  # it is whole: no video is needed


def test_a_split_without_a_clip_is_an_error(
    backbone: Backbone, data_of: DataOf, copy: Path, tmp_path: Path
) -> None:
    for path in (copy / "videos").rglob("val_*.mp4"):
        path.write_text("no video")
    with pytest.raises(DataError, match=r"val.csv: none of its 18 clips can be read; the first is"):
        write_features(tmp_path / "features", backbone, data_of(root=str(copy), on_error="exclude"))


def test_the_disk_is_told_and_must_suffice(
    backbone: Backbone,
    data_of: DataOf,
    stored: FeatureCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10_000))
    with pytest.raises(DataError, match=r"2.8 MB must be free on its disk \(got 10.0 kB\)"):
        write_features(tmp_path / "features", backbone, data_of(), num_views=3)
    told = int(capsys.readouterr().out.split("(")[1].split()[0])
    held = 0
    for path in stored.root.glob("[!.]*-*.safetensors"):
        with safe_open(path, "pt") as file:
            held += file.get_tensor("feature_maps").nbytes
    assert told == held == cache_bytes({"train": 36, "val": 18, "test": 18}, 3, (128, 2, 4, 4))


@pytest.mark.parametrize(
    ("num_clips", "frames", "num_views", "gigabytes"),
    [
        ({"train": 26_319, "val": 8_520}, 8, 1, 13.98),
        ({"train": 26_319, "val": 8_520}, 8, 5, 56.24),
        ({"train": 29_333, "val": 9_645}, 8, 1, 15.65),
        ({"train": 29_333, "val": 9_645}, 8, 5, 62.74),
        ({"train": 8_000, "val": 500, "test": 1_500}, 4, 1, 2.01),
        ({"train": 8_000, "val": 500, "test": 1_500}, 4, 5, 8.43),
    ],
    ids=["gym99", "gym99, 5 views", "gym288", "gym288, 5 views", "haa500", "haa500, 5 views"],
)
def test_the_disk_that_the_papers_datasets_take(
    num_clips: dict[str, int], frames: int, num_views: int, gigabytes: float
) -> None:
    found = cache_bytes(num_clips, num_views, (512, frames, 7, 7)) / 1e9
    assert found == pytest.approx(gigabytes, abs=0.005)


def test_numbers_that_do_not_fit_into_float16_are_an_error(
    backbone: Backbone, data_of: DataOf, tmp_path: Path
) -> None:
    class Loud(nn.Module):
        def forward(self, clip: torch.Tensor) -> torch.Tensor:
            return 1e5 * backbone.features(clip).abs() + 1e5

    loud = Backbone(Loud(), backbone.channels, backbone.stride, backbone.preprocessing, name="loud")
    with pytest.raises(DataError, match=r"mp4: its feature map has numbers that float16"):
        write_features(tmp_path / "half", loud, data_of())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_views": 0}, r"num_views must be a positive integer \(got 0\)"),
        ({"shard_size": 0}, r"shard_size must be a positive integer \(got 0\)"),
        ({"dtype": "float32"}, r"dtype must be one of float16, bfloat16 \(got 'float32'\)"),
        ({"precision": "16"}, r"precision must be one of auto, 32-true, .* \(got '16'\)"),
        ({"device": "tpu9"}, r"device must be one of this machine \(got 'tpu9'\)"),
    ],
)
def test_mistakes_are_named(
    backbone: Backbone, data_of: DataOf, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_features(tmp_path / "features", backbone, data_of(), **options)


def test_the_digest_sees_names_types_shapes_and_bytes() -> None:
    state = {"a": torch.arange(6.0), "b": torch.zeros(())}
    digest = weights_digest(state)
    assert weights_digest(dict(reversed(state.items()))) == digest
    strided = torch.arange(6.0).repeat_interleave(2)[::2]
    assert weights_digest({**state, "a": strided}) == digest
    others = [
        {"c": state["a"], "b": state["b"]},
        {**state, "a": state["a"].view(2, 3)},
        {**state, "a": state["a"].view(torch.int32)},
        {**state, "a": state["a"].nextafter(torch.tensor(9.0))},
        {**state, "c": torch.empty(0)},
    ]
    assert len({digest, *map(weights_digest, others)}) == 6


EXTRACTION = """
import os, sys, time
from pathlib import Path
from torch.utils.data import Dataset
from taghead.features.shards import Shard
from taghead.features.view_dataset import view_loader

class Slow(Dataset):
    def __getitem__(self, key):
        Path(sys.argv[1], str(os.getpid())).touch()
        time.sleep(600)

if __name__ == "__main__":
    shards = [Shard("train", 0, 8, 1)]
    next(iter(view_loader(Slow(), shards, batch_size=2, num_workers=2, pin=False)))
"""


def test_readers_end_with_an_extraction_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(EXTRACTION)
    readers = killed_while_reading([tmp_path / "script.py"], tmp_path)
    assert len(readers) == 2
    assert all_ended(readers)
