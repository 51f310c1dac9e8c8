import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from faulty import copy_clip, plant, write_clip, write_folder
from PIL import Image
from pyarrow import parquet

from taghead.cli import main
from taghead.data import VideoDataModule
from taghead.data.index import scan as scanning
from taghead.data.index.manifest import read_manifest
from taghead.errors import DataError
from taghead.files import text_to_name
from taghead.video import Preprocessing

SMALL = Preprocessing(num_frames=4, resize=32, crop=32, flip=0.0, random_crop=False)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def module(root: str, **options: object) -> VideoDataModule:
    return VideoDataModule(root, **{"preprocessing": SMALL, "num_workers": 0, **options})  # type: ignore[arg-type]


def test_twelve_faults_among_three_hundred_clips(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    faults = plant(write_folder(Path("videos"), 300))
    main(["index", "videos", "--output=out"])
    printed = capsys.readouterr().out
    named = re.findall(r"^  train  (\S.*?\.mp4): (.*)$", printed, flags=re.MULTILINE)
    assert {Path(path) for path, _ in named} == set(faults)
    assert len(named) == len(faults) == 12
    for path, reason in named:
        assert reason.startswith(faults[Path(path)])
    assert "288 of 300 clips can be used: 288 + 12 = 300" in printed
    excluded = pd.read_csv("out/excluded.csv", keep_default_na=False)
    assert [*zip(excluded["path"], excluded["reason"], strict=True)] == named

    stopped = module("videos", manifest="out/manifest.parquet")
    with pytest.raises(DataError, match=r"the file is empty, listed in videos \(and 11 more\)$"):
        stopped.setup("fit")
    data = module("videos", manifest="out/manifest.parquet", on_error="exclude", batch_size=64)
    data.setup("fit")
    assert data.counts("train") == (288, 300)
    assert "train: 288 of 300 clips are used" in caplog.text
    assert sum(len(labels) for _, labels, _ in data.train_dataloader()) == 288
    assert pd.read_csv("excluded.csv", keep_default_na=False).equals(excluded)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read from here on, without processes."""
    files: list[str] = []
    whole = scanning.scan_file
    monkeypatch.setattr(scanning, "scan_file", lambda job: files.append(job.file) or whole(job))
    return files


def test_training_reads_only_what_has_changed(
    read: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    paths = write_folder(Path("videos"), 12, classes=2)
    main(["index", "videos", "--output=out", "--num_workers=0"])
    assert len(read) == 12
    paths[3].write_text("no longer a video")
    paths[4].write_bytes(b"")
    paths[5].unlink()
    root = str(Path("videos").absolute())
    for _ in range(2):  # and remembers it
        data = module(root, manifest="out/manifest.parquet", on_error="exclude")
        data.setup("fit")
        assert data.counts("train") == (9, 11)
        left_out = [bad.clip.path.name for bad in data.excluded["train"]]
        assert left_out == ["clip_004.mp4", "clip_003.mp4"]
    assert read[12:] == ["class 1/clip_003.mp4"]
    gone = (
        "train: 1 clips that out/manifest.parquet has are not listed any more, the first is class 1"
    )
    assert gone in caplog.text


def test_without_a_manifest_clips_are_read_once(read: list[str]) -> None:
    write_folder(Path("videos"), 6, classes=2)[2].write_text("no video")
    for _ in range(2):
        data = module("videos", on_error="exclude")
        data.setup("fit")
        assert data.counts("train") == (5, 6)
    assert len(read) == 6


def test_manifest_and_report(capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for number, (split, name, frames) in enumerate(
        [("train", "a", 6), ("train", "b", 9), ("train", "c", 6), ("val", "a", 6), ("val", "b", 40)]
    ):
        path = write_clip(Path(f"videos/x/{split}_{name}.mp4"), number, frames)
        rows.append((split, path, frames))
    copy_clip(Path("videos/x/train_b.mp4"), Path("videos/x/val_a.mp4"))
    copy_clip(Path("videos/x/train_a.mp4"), Path("videos/y/train_d.mp4"))
    header = "FileName,Class,TotalFrames,ClassEncoded\n"
    Path("train.csv").write_text(
        f"{header}train_a.mp4,x,6,0\ntrain_b.mp4,x,10,0\ntrain_d.mp4,y,6,1\ngone.mp4,y,6,1\n"
    )
    Path("val.csv").write_text(f"{header}val_a.mp4,x,9,0\nval_b.mp4,x,40,0\n")
    main(
        ["index", "videos", "--train=train.csv", "--val=val.csv", "--output=out", "--min_frames=9"]
    )
    printed = capsys.readouterr().out
    assert printed.startswith(Path("out/report.txt").read_text())
    for line in (
        "videos: reference, 2 classes",
        "train          4       3         1  train.csv",
        "val            2       2         0  val.csv",
        "5 of 6 clips can be used: 5 + 1 = 6",
        "  train  videos/y/gone.mp4: no such video file",
        "shorter than 9 frames, so that frames are repeated: 2; the first: videos/x/train_a.mp4",
        "wrong number of frames: 1; the first: videos/x/train_b.mp4 (listed 10, has 9)",
        "wholly or in part: 2; the first: videos/x/train_b.mp4 (val: videos/x/val_a.mp4)",
        "twice in a split: 2; the first: videos/x/train_a.mp4 (train: videos/y/train_d.mp4)",
        "twice in a split, in two classes: 2;",
        "0 head (more than 100), 0 medium (20 to 100), 2 tail (fewer than 20)",
        "train: 1 (y) to 2 (x) clips of a class, median 1.5, 0 classes without a clip",
        "val: 0 (y) to 2 (x) clips of a class, median 1, 1 classes without a clip",
        "codecs: h264 5",
    ):
        assert line in printed
    table = parquet.read_table("out/manifest.parquet")
    assert table["split"].to_pylist() == ["train"] * 4 + ["val"] * 2
    assert table["num_frames"].to_pylist() == [6, 9, 6, 0, 9, 40]
    assert table["file"].to_pylist()[2] == "y/train_d.mp4"
    assert table["reason"].to_pylist() == ["", "", "", "no such video file", "", ""]
    manifest = read_manifest("out/manifest.parquet")
    assert manifest.description["class_names"] == ["x", "y"]
    assert manifest.description["format"] == "reference"
    assert manifest.description["schema_version"] == 1
    assert len(manifest.known) == 5
    assert manifest.listed["val"] == [("x/val_a.mp4", ""), ("x/val_b.mp4", "")]
    with Image.open("out/classes.png") as picture:
        assert min(picture.size) > 300
    assert sorted(path.name for path in Path("out").iterdir() if path.name != ".lock") == [
        "classes.png",
        "excluded.csv",
        "manifest.parquet",
        "report.txt",
    ]


def test_names_that_are_not_utf8(read: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for number, split in enumerate(("train", "val", "test")):
        for name in ("a", "b"):
            write_clip(Path(f"videos/{split}/{name}/0.mp4"), 2 * number + ord(name))
        os.rename(b"videos/%s/a" % split.encode(), b"videos/%s/caf\xe9" % split.encode())
    odd = os.fsdecode(b"videos/test/caf\xe9/\xff.mp4")
    os.rename("videos/test/b/0.mp4", odd)
    write_clip(Path("videos/test/b/0.mp4"), 9)
    gone = Path(os.fsdecode(b"videos/val/caf\xe9/\xfe.mp4"))
    gone.write_text("no video")
    main(["index", "videos", "--output=out", "--num_workers=0"])
    assert r"val  videos/val/caf\xe9/\xfe.mp4: " in capsys.readouterr().out
    excluded = pd.read_csv("out/excluded.csv")
    assert [text_to_name(path) for path in excluded["path"]] == [str(gone)]
    manifest = read_manifest("out/manifest.parquet")
    assert manifest.description["class_names"] == ["b", r"caf\xe9"]
    assert (odd.removeprefix("videos/"), "") in manifest.known
    assert all(Path("videos", file).is_file() for file, _ in manifest.known)
    read.clear()
    for _ in range(2):  # what is known is found again by its bytes
        data = module("videos", manifest="out/manifest.parquet", on_error="exclude")
        data.setup("test")
        assert len(list(data.test_dataloader())) == 1
        assert not read
    main(["index", "videos", "--output=out", "--num_workers=0"])
    assert not read


def test_segments_of_two_splits_that_overlap_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    write_clip(Path("videos/long.mp4"), frames=100)
    Path("train.csv").write_text("path,label,start_sec,end_sec\nlong.mp4,x,0,1\nlong.mp4,y,1,2\n")
    Path("val.csv").write_text("path,label,start_sec,end_sec\nlong.mp4,x,1.9,3\nlong.mp4,y,3,4\n")
    main(["index", "videos", "--train=train.csv", "--val=val.csv", "--output=out"])
    table = pd.read_parquet("out/manifest.parquet")
    assert table["same_as"].tolist() == [
        "",
        "val: videos/long.mp4 [1.9..3.0 sec]",
        "train: videos/long.mp4 [1.0..2.0 sec]",
        "",
    ]
    assert "in two splits, wholly or in part: 2;" in capsys.readouterr().out


def index_until(num_lines: int) -> subprocess.Popen:
    """`taghead index` in a process of its own, which has found out about some clips."""
    command = [sys.executable, "-c", "from taghead.cli import main; main()", "index", "videos"]
    process = subprocess.Popen(
        [*command, "--output=out", "--num_workers=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # "&" ignores it
    )
    end = time.monotonic() + 60
    while len(kept_files()) < num_lines:
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.002)
    return process


def kept_files() -> list[str]:
    """The clips that an unfinished index has read."""
    path = Path("out/partial.jsonl")
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [
        json.loads(line)["file"] for line in lines[1:] if line.startswith("{") and line[-1] == "\n"
    ]


def test_an_index_that_is_stopped_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(Path("videos"), 120)
    process = index_until(5)
    process.kill()
    process.communicate()
    killed = kept_files()
    assert 5 <= len(killed) < 100
    process = index_until(len(killed) + 5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "stopped; the same command resumes it" in errors
    assert "Traceback" not in errors
    stopped = kept_files()
    assert stopped[: len(killed)] == killed
    assert len(set(stopped)) == len(stopped) < 120
    assert not Path("out/manifest.parquet").exists()
    for path in (killed[0], killed[-1], stopped[-1]):  # reading them again would find it out
        state = Path("videos", path).stat()
        Path("videos", path).write_bytes(bytes(state.st_size))
        os.utime(Path("videos", path), ns=(state.st_atime_ns, state.st_mtime_ns))
    main(["index", "videos", "--output=out", "--num_workers=0"])
    assert "120 of 120 clips can be used" in capsys.readouterr().out
    assert not Path("out/partial.jsonl").exists()
    main(["index", "videos", "--output=out", "--num_workers=0", "--rescan=true"])
    assert "117 of 120 clips can be used" in capsys.readouterr().out


def test_outputs_of_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    for root in ("one", "two"):
        write_folder(Path(root), 2, classes=2)
    main(["index", "one", "--output=out", "--num_workers=0"])
    with pytest.raises(SystemExit, match=r"manifest.parquet: is of another folder of videos, one"):
        main(["index", "two", "--output=out"])
    Path("out/manifest.parquet").write_text("no manifest")
    main(["index", "two", "--output=out", "--num_workers=0"])
    assert "2 of 2 clips can be used" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "^error: nowhere: no such folder of videos"),
        (["videos", "--min_frames=0"], r"^error: min_frames must be positive \(got 0\)"),
        (["videos", "--timeout_sec=-1"], r"^error: timeout_sec must be positive \(got -1.0\)"),
        (["videos", "--num_workers=-1"], r"^error: num_workers must be at least 0 \(got -1\)"),
        (["videos", "--train=gone.csv"], "^error: gone.csv: no such annotation file"),
        (["videos", "--output=file"], "^error: .*[Ff]ile exists"),
    ],
)
def test_mistakes_are_told_in_a_line(args: list[str], message: str) -> None:
    write_folder(Path("videos"), 2, classes=2)
    Path("file").touch()
    with pytest.raises(SystemExit, match=message):
        main(["index", *args])


def test_manifests_that_are_none() -> None:
    with pytest.raises(
        DataError, match=r"^gone.parquet: no such manifest: taghead index writes it"
    ):
        read_manifest("gone.parquet")
    Path("text.parquet").write_text("hello")
    with pytest.raises(DataError, match=r"^text.parquet: not a manifest that taghead index wrote"):
        read_manifest("text.parquet")
    table = pa.table({"a": [1]})
    parquet.write_table(table, "other.parquet")
    with pytest.raises(DataError, match=r"^other.parquet: not a manifest that taghead index wrote"):
        read_manifest("other.parquet")
    newer = table.replace_schema_metadata({b"taghead": json.dumps({"schema_version": 99})})
    parquet.write_table(newer, "newer.parquet")
    with pytest.raises(DataError, match=r"has the schema version 99, this .* reads 1: write it"):
        read_manifest("newer.parquet")


ABOUT = {"schema_version": 1, "written_by": "taghead", "root": "videos"}
ROW = {"split": ["train"], "file": ["a.mp4"], "size": [3]}


@pytest.mark.parametrize(
    ("about", "row"),
    [
        ({"root": None}, {}),
        ({"written_by": 3}, {}),
        ({}, {"file": pa.array([None], pa.string())}),
        ({}, {"file": [b"\xff"]}),
        ({}, {"size": ["3"]}),
        ({}, {"num_frames": [None]}),
        ({}, {"fps": [[1.0]]}),
    ],
)
def test_manifests_with_values_of_other_types(about: dict[str, Any], row: dict[str, Any]) -> None:
    def stored(about: dict[str, Any], row: dict[str, Any]) -> str:
        metadata = {b"taghead": json.dumps({**ABOUT, **about})}
        table = pa.table({**ROW, **row}).replace_schema_metadata(metadata)
        parquet.write_table(table, "a.parquet")
        return "a.parquet"

    assert read_manifest(stored({}, {})).listed == {"train": [("a.mp4", "")]}
    with pytest.raises(DataError, match=r"^a.parquet: not a whole manifest: ") as error:
        read_manifest(stored(about, row))
    assert "\n" not in str(error.value)
