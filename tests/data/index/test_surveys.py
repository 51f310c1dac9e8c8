"""What `taghead index` knows of a file is stored once, and used in training."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numbered import numbers_of, write_video
from pyarrow import parquet

from taghead.cli import main
from taghead.data import VideoDataModule
from taghead.data.index.manifest import read_manifest
from taghead.video import Preprocessing, file_stamp, reader, survey_cache
from taghead.video.survey_cache import SurveyCache

SMALL = Preprocessing(num_frames=4, resize=32, crop=32, flip=0.0, random_crop=False)
STARTS = [0, 1, 2, 3, 4, 5]  # of segments of a second


@pytest.fixture(autouse=True)
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of one long file in two splits, and an index of them."""
    monkeypatch.setattr(file_stamp, "SETTLED_SEC", 0.0)
    monkeypatch.setattr(survey_cache, "_CACHE", SurveyCache())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("videos").mkdir()
    write_video(Path("videos/long.mp4"), 180)
    for split, starts in (("train", STARTS[:4]), ("val", STARTS[4:])):
        lines = [f"long.mp4,{'xy'[i % 2]},{i},{i + 1}" for i in starts]
        Path(f"{split}.csv").write_text("\n".join(["path,label,start_sec,end_sec", *lines, ""]))


@pytest.fixture
def surveyed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    make = reader.make_survey
    monkeypatch.setattr(
        reader, "make_survey", lambda path, *_: names.append(path.name) or make(path)
    )
    return names


def index() -> None:
    main(["index", "videos", "--train=train.csv", "--val=val.csv", "--num_workers=0"])


def module(**options: object) -> VideoDataModule:
    defaults = {"train": "train.csv", "val": "val.csv", "preprocessing": SMALL, "num_workers": 0}
    return VideoDataModule("videos", **{**defaults, **options})  # type: ignore[arg-type]


def read_all(data: VideoDataModule, epochs: int = 1) -> dict[int, torch.Tensor]:
    data.setup("fit")
    found = {}
    for _ in range(epochs):
        for clips, _, numbers in data.val_dataloader():
            found.update(zip(numbers.tolist(), clips, strict=True))
        for _ in data.train_dataloader():
            pass
    return found


@pytest.mark.parametrize("absolute", [False, True])
def test_a_survey_of_the_index_is_not_made_again(surveyed: list[str], absolute: bool) -> None:
    index()
    assert surveyed == ["long.mp4"]
    stored = parquet.read_table("runs/index/manifest.parquet")["survey"].to_pylist()
    assert [bool(text) for text in stored] == [True] + [False] * 5  # once a file
    plain = read_all(module())
    assert surveyed == ["long.mp4"] * 2
    survey_cache._CACHE = SurveyCache()
    root = str(Path("videos").absolute()) if absolute else "videos"
    data = module(manifest="runs/index/manifest.parquet")
    data.root = root
    known = read_all(data, epochs=2)
    assert surveyed == ["long.mp4"] * 2
    assert known.keys() == plain.keys()
    assert all(known[number].equal(plain[number]) for number in known)


def test_without_an_index_a_file_is_surveyed_once_in_a_process(surveyed: list[str]) -> None:
    read_all(module(), epochs=3)
    assert surveyed == ["long.mp4"]


def test_the_journal_of_an_earlier_run_has_surveys(surveyed: list[str]) -> None:
    read_all(module(on_error="exclude"))
    survey_cache._CACHE = SurveyCache()
    surveyed.clear()
    read_all(module(on_error="exclude"))
    assert surveyed == []


def test_a_file_that_has_changed_since_the_index(surveyed: list[str]) -> None:
    index()
    write_video(
        Path("videos/long.mp4"), 360, times=[i // 2 + 180 * (i % 2) for i in range(0)] or None
    )
    data = module(manifest="runs/index/manifest.parquet", on_error="exclude")
    surveyed.clear()
    known = read_all(data)
    assert surveyed  # by the check, and for the clips: nothing of before is used
    survey_cache._CACHE = SurveyCache()
    plain = read_all(module())
    assert all(known[number].equal(plain[number]) for number in plain)
    (survey,) = data.surveys.values()
    assert np.array_equal(
        numbers_of(SurveyCache().open("videos/long.mp4", survey).read([0, 359])), [0, 359]
    )


def test_a_file_that_changes_after_setup_is_read_as_it_is(surveyed: list[str]) -> None:
    index()
    data = module(manifest="runs/index/manifest.parquet")
    data.setup("fit")
    before = Path("videos/long.mp4").stat()
    write_video(Path("videos/long.mp4"), 180, options={"crf": "35", "g": "30"})
    os.utime("videos/long.mp4", ns=(before.st_atime_ns, before.st_mtime_ns))
    changed = read_all(data)
    survey_cache._CACHE = SurveyCache()
    plain = read_all(module())
    assert all(changed[number].equal(plain[number]) for number in plain)


def test_a_manifest_without_surveys_still_reads(surveyed: list[str]) -> None:
    index()
    path = Path("runs/index/manifest.parquet")
    parquet.write_table(parquet.read_table(path).drop_columns("survey"), path)
    assert all(result.usable for result in read_manifest(path).known.values())
    surveyed.clear()
    data = module(manifest=str(path))
    read_all(data, epochs=2)
    assert data.surveys == {}
    assert surveyed == ["long.mp4"]
