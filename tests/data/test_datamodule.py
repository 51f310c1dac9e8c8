import multiprocessing
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import av
import pandas as pd
import pytest
import torch
from killed import all_ended, killed_while_reading

from taghead.data import Clip, ClipDataset, SynthGym, VideoDataModule
from taghead.errors import DataError, VideoError
from taghead.video import Preprocessing, Segment, read_frames

SMALL = Preprocessing(num_frames=4, resize=32, crop=32, flip=0.0, random_crop=False)


def module(root: Path, **options: object) -> VideoDataModule:
    defaults = {
        "root": str(root / "videos"),
        "train": str(root / "train.csv"),
        "val": str(root / "val.csv"),
        "test": str(root / "test.csv"),
        "preprocessing": SMALL,
        "batch_size": 8,
        "num_workers": 0,
    }
    return VideoDataModule(**{**defaults, **options})  # type: ignore[arg-type]


@pytest.fixture
def copy(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(dataset, tmp_path / "clips")


def first_clip(root: Path, split: str = "train") -> Path:
    row = pd.read_csv(root / f"{split}.csv").iloc[0]
    return root / "videos" / row["Class"] / row["FileName"]


def test_every_clip_once_in_the_order_of_the_file(dataset: Path) -> None:
    data = module(dataset)
    data.setup("test")
    batches = list(data.test_dataloader())
    assert batches[0][0].shape == (8, 3, 4, 32, 32)
    assert torch.cat([index for _, _, index in batches]).tolist() == list(range(18))
    table = pd.read_csv(dataset / "test.csv")
    assert torch.cat([label for _, label, _ in batches]).tolist() == table["ClassEncoded"].tolist()
    assert [data.class_names[i] for i in table["ClassEncoded"]] == table["Class"].tolist()
    assert data.counts("test") == (18, 18)


class Stopped(torch.utils.data.Dataset):
    """Clips of which the first stops the process that reads it."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, key: int) -> int:
        os.kill(os.getpid(), signal.SIGSTOP)
        return key


def test_a_process_that_stops_is_an_error_in_bounded_time(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = module(dataset, num_workers=1, timeout_sec=2)
    data.setup("test")
    monkeypatch.setattr(data, "dataset", lambda split: Stopped())
    start = time.monotonic()
    loader = iter(data.test_dataloader())
    with pytest.raises(RuntimeError, match="timed out after 2 seconds"):
        next(loader)
    assert time.monotonic() - start < 30
    for process in multiprocessing.active_children():
        process.kill()
    assert module(dataset, num_workers=2).timeout_sec == 600
    with pytest.raises(ValueError, match=r"timeout_sec must be 0 or more \(got -1\)"):
        module(dataset, timeout_sec=-1)


def test_training_draws_every_clip_in_another_order_each_time(dataset: Path) -> None:
    data = module(dataset, batch_size=9)
    data.setup("fit")
    loader = data.train_dataloader()
    orders = [torch.cat([index for _, _, index in loader]).tolist() for _ in range(2)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(36))


def test_a_balanced_epoch_draws_rare_classes_more_often(copy: Path) -> None:
    table = pd.read_csv(copy / "train.csv")
    common = table["ClassEncoded"] == 0
    pd.concat([table, *[table[common]] * 17]).to_csv(copy / "train.csv", index=False)  # 36 and 34
    data = module(copy, class_balance=1.0)
    assert data.class_counts() == [36] + [2] * 17
    data.setup("fit")
    assert data.class_counts() == [36] + [2] * 17
    sampler = data.train_dataloader().sampler
    assert len(sampler) == 70
    labels = data.train_dataloader().dataset.labels
    drawn = [labels[draw.index] for _ in range(30) for draw in sampler]
    share = drawn.count(0) / len(drawn)
    assert abs(share - 1 / 18) < 5 * (1 / 18 * 17 / 18 / len(drawn)) ** 0.5
    batches = [label for _, label, _ in data.train_dataloader()]
    assert sum(map(len, batches)) == 70
    in_order = module(copy, class_balance=1.0, train=str(copy / "val.csv"))
    in_order.setup("validate")
    order = torch.cat([index for _, _, index in in_order.val_dataloader()])
    assert order.tolist() == list(range(18))  # only training draws


def test_class_counts_are_of_the_clips_in_use(copy: Path) -> None:
    first = first_clip(copy)
    first.unlink()
    data = module(copy, on_error="exclude")
    listed = data.class_counts()
    assert sum(listed) == 36
    data.setup("fit")
    lost = data.class_names.index(first.parent.name)
    assert [a - b for a, b in zip(listed, data.class_counts(), strict=True)] == [
        int(label == lost) for label in range(18)
    ]


def test_only_a_test_has_several_views(dataset: Path) -> None:
    views = replace(SMALL, sampling="segments", test_clips=2, test_crops=3)
    data = module(dataset, preprocessing=views)
    for stage in ("fit", "test"):
        data.setup(stage)
    assert next(iter(data.train_dataloader()))[0].shape == (8, 3, 4, 32, 32)
    assert next(iter(data.val_dataloader()))[0].shape == (8, 3, 4, 32, 32)
    assert next(iter(data.test_dataloader()))[0].shape == (8, 6, 3, 4, 32, 32)


def test_a_clip_may_be_a_part_of_a_video(dataset: Path) -> None:
    path = first_clip(dataset)
    clip = Clip(path, 3, "tuck", Segment(5, 9, "frame"))
    one = Preprocessing(num_frames=4, resize=32, crop=32, flip=0.0, random_crop=False)
    many = replace(one, test_crops=3)
    for train, preprocessing in ((False, one), (True, one), (False, many)):
        item, label, index = ClipDataset([clip], preprocessing, train, views=True)[0]
        assert (label, index) == (3, 0)
        central = item if item.dim() == 4 else item[1]
        frames = torch.from_numpy(read_frames(path, range(5, 9))).permute(0, 3, 1, 2)
        assert torch.equal(central, one.test_transform()(frames))


def test_the_check_reads_up_to_the_last_frame(copy: Path) -> None:
    """Dense clips of a test lie in the middle: those of training reach further."""
    bad = first_clip(copy)
    contents = bytearray(bad.read_bytes())
    with av.open(bad) as container:
        last = [packet for packet in container.demux(video=0) if packet.size][-1]
    contents[last.pos : last.pos + last.size] = bytes(last.size)
    bad.write_bytes(contents)
    dense = replace(SMALL, sampling="dense")
    dense.load(bad)
    data = module(copy, preprocessing=dense, on_error="exclude")
    data.setup("fit")
    (found,) = data.excluded["train"]
    assert found.clip.path == bad
    assert "damaged" in found.reason


def test_missing_clips_stop_before_training(copy: Path) -> None:
    bad = first_clip(copy)
    bad.unlink()
    with pytest.raises(DataError, match=f"{bad}: no such video file, listed in {copy}/train.csv"):
        module(copy).setup("fit")
    bad.touch()
    with pytest.raises(DataError, match=f"{bad}: the file is empty"):
        module(copy).setup("fit")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_clip_stops_with_its_name(copy: Path, num_workers: int) -> None:
    bad = first_clip(copy, "test")
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    data = module(copy, num_workers=num_workers)
    data.setup("test")
    with pytest.raises(VideoError, match=f"{bad}: truncated"):
        list(data.test_dataloader())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_excluded_clips_are_counted_and_listed(
    copy: Path, caplog: pytest.LogCaptureFixture, num_workers: int
) -> None:
    first_clip(copy, "train").unlink()
    half = first_clip(copy, "val")
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    data = module(copy, on_error="exclude", num_workers=num_workers)
    data.setup("fit")
    assert data.counts("train") == (35, 36)
    assert data.counts("val") == (17, 18)
    assert "train: 35 of 36 clips are used" in caplog.text
    table = pd.read_csv("excluded.csv")
    assert table["path"].tolist() == [str(first_clip(copy, "train")), str(half)]
    assert table["split"].tolist() == ["train", "val"]
    assert table["reason"].str.contains("no such video file|truncated").all()
    batches = list(data.val_dataloader())
    assert sum(len(label) for _, label, _ in batches) == 17


def test_nothing_left_is_an_error(copy: Path) -> None:
    for path in (copy / "videos").rglob("val_*.mp4"):
        path.write_text("no video")
    with pytest.raises(DataError, match=r"val.csv: none of its 18 clips can be read; the first is"):
        module(copy, on_error="exclude").setup("fit")


def test_a_wrong_folder_of_videos_is_told(copy: Path) -> None:
    wrong = module(copy)
    wrong.root = str(copy / "nowhere")
    with pytest.raises(DataError, match=rf"^{copy}/nowhere: no such folder of videos"):
        wrong.setup("fit")
    (copy / "nowhere").mkdir()
    lost = (
        r"no such video file \(there is no folder .*listed in .*: none of its 36 clips can be used"
    )
    with pytest.raises(DataError, match=lost):
        wrong.setup("fit")


def test_an_unknown_class_in_the_test_split_stops_training(copy: Path) -> None:
    text = (copy / "test.csv").read_text()
    name = first_clip(copy, "test").parent.name
    (copy / "test.csv").write_text(text.replace(f",{name},", ",handstand,"))
    with pytest.raises(DataError, match=r"test.csv: unknown class 'handstand'"):
        module(copy).setup("fit")


def test_without_a_test_split_testing_is_an_error(dataset: Path) -> None:
    data = module(dataset, test=None)
    data.setup("test")
    with pytest.raises(DataError, match=r"data.test: no annotation file"):
        data.test_dataloader()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_error": "skip"}, r"on_error must be raise or exclude \(got 'skip'\)"),
        ({"class_balance": 1.5}, r"class_balance must be from 0 to 1 \(got 1.5\)"),
        ({"batch_size": 0}, r"batch_size must be at least 1 .*got 0"),
        ({"num_workers": -1}, r"num_workers at least 0 .*-1"),
    ],
)
def test_mistakes_are_named(dataset: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(dataset, **options)


def test_synthgym_writes_its_clips_once(tmp_path: Path) -> None:
    data = SynthGym(
        str(tmp_path / "clips"), num_train=4, num_val=2, num_test=2, preprocessing=SMALL
    )
    assert len(data.class_names) == 18
    data.prepare_data()
    videos = sorted((tmp_path / "clips").rglob("*.mp4"))
    written = [path.stat().st_mtime_ns for path in videos]
    assert len(videos) == 8
    data.prepare_data()
    assert [path.stat().st_mtime_ns for path in videos] == written


def test_synthgym_without_validation_clips_has_no_such_split(tmp_path: Path) -> None:
    classes = ["backward_tuck_0_half_twists", "backward_tuck_1_half_twist"]
    data = SynthGym(
        str(tmp_path / "clips"),
        num_train=2,
        num_val=0,
        num_test=2,
        preprocessing=SMALL,
        classes=classes,
    )
    data.prepare_data()
    data.setup("fit")
    assert data.val_dataloader() == []
    assert data.class_names == classes
    assert sorted(clip.class_name for clip in data.clips["train"]) == classes


def test_a_checkpoint_holds_no_data(tmp_path: Path) -> None:
    """Lightning would make the module of the file's hyper-parameters."""
    hyper = {"root": "x", "train": "x.csv"}
    torch.save({"datamodule_hyper_parameters": hyper, "state_dict": {}}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="a checkpoint holds no data: make VideoDataModule of its"):
        VideoDataModule.load_from_checkpoint(tmp_path / "a.ckpt")


def test_loaders_wait_for_a_bounded_time(dataset: Path) -> None:
    for num_workers, expected in ((2, 7), (0, 0)):
        data = module(dataset, num_workers=num_workers, timeout_sec=7)
        for stage in ("fit", "test"):
            data.setup(stage)
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
            assert loader.timeout == expected


TRAINING = """
import os, sys, time
from pathlib import Path
from torch.utils.data import Dataset
from taghead.data import VideoDataModule

class Slow(Dataset):
    labels = [0] * 8

    def __len__(self):
        return 8

    def __getitem__(self, key):
        Path(sys.argv[2], str(os.getpid())).touch()
        time.sleep(600)

if __name__ == "__main__":
    data = VideoDataModule("videos", "train.csv", num_workers=2, batch_size=2)
    data.dataset = lambda split: Slow()
    next(iter(data._loader(sys.argv[1])))
"""


@pytest.mark.parametrize("split", ["train", "val"])
def test_readers_end_with_a_training_that_is_killed(split: str, tmp_path: Path) -> None:
    """Also where they are in the middle of a clip, and cannot see that nobody waits for it."""
    (tmp_path / "script.py").write_text(TRAINING)
    readers = killed_while_reading([tmp_path / "script.py", split], tmp_path)
    assert len(readers) == 2
    assert all_ended(readers)
