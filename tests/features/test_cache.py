"""What a cache holds is what the backbone makes of the clips, view by view."""

import hashlib
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from taghead.backbones import Backbone
from taghead.data import ClipDataset, SynthGym
from taghead.errors import DataError
from taghead.features import FeatureCache, FeatureDataModule, FeatureDataset
from taghead.features.extract import write_features
from taghead.features.view_dataset import ViewDataset, ViewKey
from taghead.sweep.run import _data_digest
from taghead.video import Preprocessing

DataOf = Callable[..., SynthGym]


def test_a_feature_map_is_the_backbones_rounded_to_float16(
    stored: FeatureCache, backbone: Backbone, data_of: DataOf
) -> None:
    data = data_of()
    for split, part in stored.splits.items():
        clips = ClipDataset(data.listed[split], data.preprocessing)
        batch = torch.stack([clips[i][0] for i in range(len(clips))])
        with torch.no_grad():
            expected = backbone(batch)
        found = torch.stack([part.views(i)[0] for i in range(len(part))])
        assert found.dtype == torch.float16
        torch.testing.assert_close(found.float(), expected, rtol=2**-11, atol=1e-6)
        assert [clip.label for clip in part.clips] == clips.labels


def test_later_views_are_random_and_the_same_each_time(
    stored: FeatureCache, backbone: Backbone, data_of: DataOf, tmp_path: Path
) -> None:
    assert stored.splits["train"].views(0).shape == (3, 128, 2, 4, 4)
    assert stored.splits["val"].views(0).shape == (1, 128, 2, 4, 4)
    torch.manual_seed(99)
    again = write_features(
        tmp_path / "again", backbone, data_of(num_workers=2, batch_size=5), num_views=3
    )
    other = write_features(tmp_path / "other", backbone, data_of(), num_views=2, seed=1)
    for i in range(36):
        views = stored.splits["train"].views(i).float()
        # another batch size changes the rounding, at most
        torch.testing.assert_close(
            again.splits["train"].views(i).float(), views, rtol=2e-3, atol=1e-3
        )
        drawn_otherwise = other.splits["train"].views(i).float()
        torch.testing.assert_close(drawn_otherwise[0], views[0])
        assert not torch.allclose(drawn_otherwise[1], views[1], rtol=2e-3, atol=1e-3)
        distances = torch.cdist(views.flatten(1), views.flatten(1))[[0, 0, 1], [1, 2, 2]]
        assert distances.min() > 0.1


def test_the_views_of_a_test_are_all_kept(
    backbone: Backbone, data_of: DataOf, tmp_path: Path
) -> None:
    preprocessing = replace(data_of().preprocessing, test_clips=2, test_crops=3)
    data = data_of(preprocessing=preprocessing, batch_size=4)
    found = write_features(tmp_path / "features", backbone, data, num_views=2)
    shapes = {split: part.views(0).shape[0] for split, part in found.splits.items()}
    assert shapes == {"train": 2, "val": 1, "test": 6}
    clips = ClipDataset(data.listed["test"], preprocessing, views=True)
    with torch.no_grad():
        expected = backbone(clips[7][0])
    views, label, index = FeatureDataset(found.splits["test"], views=True)[7]
    torch.testing.assert_close(views.float(), expected, rtol=2e-3, atol=1e-5)
    assert (label, index) == (clips.labels[7], 7)


def test_bfloat16(
    backbone: Backbone, data_of: DataOf, stored: FeatureCache, tmp_path: Path
) -> None:
    found = write_features(tmp_path / "features", backbone, data_of(), dtype="bfloat16")
    maps = found.splits["val"].views(3)
    assert maps.dtype == torch.bfloat16
    torch.testing.assert_close(
        maps.float(), stored.splits["val"].views(3).float(), rtol=2**-7, atol=1e-6
    )


def test_training_draws_every_view_and_evaluation_the_first(stored: FeatureCache) -> None:
    part = stored.splits["train"]
    views = part.views(4)
    drawn = FeatureDataset(part, train=True)
    found = [drawn[4][0] for _ in range(60)]
    counts = [sum(torch.equal(view, one) for one in found) for view in views]
    assert sum(counts) == 60
    assert min(counts) > 5
    assert all(torch.equal(FeatureDataset(part)[4][0], views[0]) for _ in range(10))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_clip_comes_once_an_epoch_in_an_order_over_all_files(
    stored: FeatureCache, num_workers: int
) -> None:
    data = FeatureDataModule(str(stored.root), batch_size=5, num_workers=num_workers)
    data.setup("fit")
    loader = data.train_dataloader()
    orders = []
    for _ in range(2):
        order = []
        for maps, labels, indices in loader:
            assert maps.shape[1:] == (128, 2, 4, 4)
            for one, label, index in zip(maps, labels.tolist(), indices.tolist(), strict=True):
                assert any(torch.equal(one, view) for view in stored.splits["train"].views(index))
                assert data.clips["train"][index].label == label
                order.append(index)
        assert sorted(order) == list(range(36))
        orders.append(order)
    assert orders[0] != orders[1]
    assert data.class_counts() == [2] * 18
    assert data.class_names == stored.spec.class_names


def test_another_process_reads_the_files_itself(stored: FeatureCache) -> None:
    dataset = FeatureDataset(stored.splits["train"])
    expected = dataset[3][0]
    data = pickle.dumps(dataset)
    assert len(data) < 20_000
    assert torch.equal(pickle.loads(data)[3][0], expected)


def test_the_manifest_says_what_the_cache_is(
    stored: FeatureCache, backbone: Backbone, data_of: DataOf
) -> None:
    manifest = json.loads((stored.root / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["backbone"] == "r2plus1d_tiny"
    assert manifest["feature_shape"] == [128, 2, 4, 4]
    assert Preprocessing.from_dict(manifest["preprocessing"]) == data_of().preprocessing
    counts = {"num_listed": 36, "num_used": 36, "num_excluded": 0}
    assert manifest["counts"]["train"] == counts
    state = stored.backbone().state_dict()
    assert all(torch.equal(state[name], value) for name, value in backbone.state_dict().items())


def changed(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"format": 1', '"format": 2', r"manifest.json: format must be 1 \(got 2\)"),
        ('"format": 1', "format", r"manifest.json: not a readable manifest: "),
        ('"weights_sha256"', '"weights"', r"not a whole manifest: KeyError\('weights_sha256'\)"),
    ],
)
def test_a_manifest_that_cannot_be_used(
    stored: FeatureCache, tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = (stored.root / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(changed(text, old, new))
    with pytest.raises(DataError, match=f"^{tmp_path}.*{message}"):
        FeatureCache(tmp_path)


def test_no_cache_and_half_a_cache(stored: FeatureCache, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^{tmp_path}: no feature cache: manifest.json is missing"):
        FeatureCache(tmp_path)
    text = (stored.root / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"train-0000000.safetensors: must have \d+ bytes.*None"):
        FeatureCache(tmp_path)


def test_a_clip_that_breaks_is_told_and_one_that_is_known_to_be_broken_not_tried(
    data_of: DataOf, tmp_path: Path
) -> None:
    listed = data_of().listed["train"]
    (tmp_path / "text.mp4").write_text("hello")
    clips = [listed[0], replace(listed[1], path=tmp_path / "text.mp4"), listed[2]]
    known: dict[ViewKey, str] = {("train", 2): "it hangs"}
    views = ViewDataset({"train": clips}, data_of().preprocessing, 2, 0, known)
    key, good = views["train", 0]
    assert (key, good.shape) == (("train", 0), (2, 3, 8, 32, 32))  # type: ignore[union-attr]
    assert str(views["train", 1][1]).startswith("cannot be opened as a video")
    assert views["train", 2] == (("train", 2), "it hangs")


@pytest.fixture
def copied(stored: FeatureCache, tmp_path: Path) -> Path:
    return shutil.copytree(stored.root, tmp_path / "features")


def spoil(path: Path, change: Callable[[bytearray], object]) -> None:
    """Changes a file's bytes, and gives it the times of before."""
    stat = path.stat()
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def flip(position: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[position] ^= 1

    return change


def swap_clips(data: bytearray) -> None:
    size = 128 * 2 * 4 * 4 * 2  # bytes of a feature map
    data[-2 * size : -size], data[-size:] = data[-size:], data[-2 * size : -size]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (flip(-1), "its bytes are not those that manifest.json names"),
        (swap_clips, "its bytes are not those that manifest.json names"),
        (flip(9), "not a whole shard"),
        (lambda data: data.__setitem__(slice(8), b"\xff" * 8), "not a whole shard"),
        (
            lambda data: data.__setitem__(slice(None), data.replace(b"F16", b"I16")),
            r"must hold feature maps \[18, 1, 128, 2, 4, 4\] in torch.float16 and nothing else",
        ),
    ],
)
def test_damaged_and_swapped_feature_maps_are_refused_at_the_first_read(
    copied: Path, change: Callable[[bytearray], object], message: str
) -> None:
    shard = copied / "val-0000000.safetensors"
    spoil(shard, change)
    found = FeatureCache(copied)
    for read in (lambda: found.splits["val"].views(0), found.verify):
        with pytest.raises(DataError, match=rf"^{shard}: {message}"):
            read()
    found.splits["train"].views(0)


def test_a_shard_in_place_of_another_is_refused(copied: Path) -> None:
    shutil.copy(copied / "val-0000000.safetensors", copied / "test-0000000.safetensors")
    data = FeatureDataModule(str(copied), num_workers=1)
    data.setup("test")
    with pytest.raises(DataError, match=r"test-0000000.safetensors: its bytes are not those"):
        list(data.test_dataloader())


def test_a_checksum_is_computed_once(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[str] = []
    whole = hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, name: computed.append(file.name) or whole(file, name)
    )
    for _ in range(2):
        found = FeatureCache(copied)
        for index in range(18):
            found.splits["val"].views(index)
        found.splits["test"].views(3)
    assert sorted(Path(name).name for name in map(str, computed)) == [
        "test-0000000.safetensors",
        "val-0000000.safetensors",
    ]


def test_a_shard_that_is_cut_while_it_is_used_is_an_error(copied: Path) -> None:
    part = FeatureCache(copied).splits["val"]
    part.views(17)
    os.truncate(part.shards[0].path, 5000)
    with pytest.raises(DataError, match=r"val-0000000.safetensors: (must hold|not a whole shard)"):
        part.views(17)
    part.shards[0].path.unlink()
    with pytest.raises(DataError, match=r"val-0000000.safetensors: .*No such file"):
        part.views(17)


@pytest.mark.parametrize("name", ["manifest.json", "backbone.safetensors"])
def test_pipes_in_a_cache_are_refused(copied: Path, name: str) -> None:
    (copied / name).unlink()
    os.mkfifo(copied / name)
    with pytest.raises(DataError, match=f"{copied / name}: not a regular file"):
        FeatureCache(copied).backbone()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"feature_shape": [', '"feature_shape": [1000000, 1000000, 1000, '),
        ('"feature_shape": [', '"feature_shape": [-1, '),
        ('"num_frames": 8', '"num_frames": "8"'),
        ('"num_views": 3', '"num_views": {}'),
        ('"num_clips": ', '"num_clips": 1000000000000'),
    ],
)
def test_sizes_that_the_shards_do_not_have_take_no_memory(copied: Path, old: str, new: str) -> None:
    path = copied / "manifest.json"
    text = path.read_text()
    assert old in text
    path.write_text(re.sub(r"\s+", " ", text).replace(old, new))
    with pytest.raises(DataError, match=rf"^{copied}"):
        [part.views(0) for part in FeatureCache(copied).splits.values()]


def test_a_device_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").symlink_to("/dev/null")
    with pytest.raises(DataError, match=f"{tmp_path / 'manifest.json'}: not a regular file"):
        FeatureCache(tmp_path)


@pytest.mark.parametrize(
    "name", ["manifest.json", "backbone.safetensors", "train-0000000.safetensors"]
)
@pytest.mark.parametrize("kind", ["pipe", "device", "terabyte"])
def test_what_is_no_file_of_a_cache_is_refused(copied: Path, name: str, kind: str) -> None:
    path = copied / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 2**40)
    with pytest.raises(DataError, match=f"^{path}: ") as refusal:
        FeatureCache(copied).backbone()
    assert str(refusal.value).count("\n") <= 2


def test_a_shard_outside_the_folder_is_refused(copied: Path) -> None:
    path = copied / "manifest.json"
    path.write_text(changed(path.read_text(), '"val-0000000', '"../val-0000000'))
    with pytest.raises(DataError, match=r"manifest.json: '../val-.*' is not in the cache's folder"):
        FeatureCache(copied)


def test_the_digest_of_a_sweep_covers_the_shards(stored: FeatureCache, copied: Path) -> None:
    digest = _data_digest(FeatureDataModule(str(stored.root)))
    assert _data_digest(FeatureDataModule(str(copied))) == digest
    shutil.copytree(copied, copied.with_name("damaged"))
    spoil(copied.with_name("damaged") / "train-0000000.safetensors", flip(-1))
    with pytest.raises(DataError, match=r"train-0000000.safetensors: its bytes are not those"):
        _data_digest(FeatureDataModule(str(copied.with_name("damaged"))))
