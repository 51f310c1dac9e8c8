import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from taghead.data import Clip
from taghead.files import text_to_name
from taghead.inference.predictor import Prediction, print_table
from taghead.metrics import Predictions, long_tail_groups
from taghead.training.report import (
    TestReport,
    class_table,
    confusion_matrix,
    contact_sheet,
    headline,
    predictions_table,
    summary,
)
from taghead.video import Segment, VideoReader

ODD = ["a$\\bad$", "[/b] [bold]c", "{0} %s"]


def test_names_are_drawn_and_printed_as_they_are(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = sorted((dataset / "videos").rglob("test_*.mp4"))[:3]
    clips = [Clip(video, number, ODD[number]) for number, video in enumerate(videos)]
    scores = np.array([[0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.1, 0.2, 0.7]])
    table = predictions_table(clips, ODD, Predictions(np.arange(3), np.arange(3), scores))
    assert table["predicted"].tolist() == [ODD[0], ODD[0], ODD[2]]
    confusion_matrix(table, ODD, tmp_path / "matrix.png")
    contact_sheet(table, clips, tmp_path / "sheet.png")
    for name in ("matrix.png", "sheet.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 100
    print_table([Prediction("[/b].mp4", tuple((name, 0.5) for name in ODD))])
    printed = capsys.readouterr().out
    assert "[/b].mp4" in printed
    assert all(name in printed for name in ODD)


def test_the_contact_sheet_shows_parts_of_videos_and_survives_those_that_are_gone(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read, asked = VideoReader.read, []

    def record(reader: VideoReader, indices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        asked.append(indices.tolist())
        return read(reader, indices, size)

    monkeypatch.setattr(VideoReader, "read", record)
    video = next((dataset / "videos").rglob("test_*.mp4"))
    clips = [Clip(video, 0, ODD[0], Segment(5, 9, "frame")), Clip(Path("gone.mp4"), 1, ODD[1])]
    scores = np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0]])
    table = predictions_table(clips, ODD, Predictions(np.arange(2), np.arange(2), scores))
    contact_sheet(table, clips, tmp_path / "sheet.png", num_frames=4)
    assert asked == [[5, 6, 7, 8]]
    assert "the contact sheet lacks a clip: gone.mp4: no such file" in caplog.text
    assert (tmp_path / "sheet.png").is_file()


def test_a_clip_is_found_again_by_the_name_in_the_table(tmp_path: Path) -> None:
    clips = [Clip(Path(os.fsdecode(b"x/caf\xe9.mp4")), 0, "x", Segment(1.0, 2.0))]
    table = predictions_table(
        clips, ["x"], Predictions(np.arange(1), np.arange(1), np.ones((1, 1)))
    )
    table.to_csv(tmp_path / "predictions.csv", index=False)
    (row,) = pd.read_csv(tmp_path / "predictions.csv").to_dict("records")
    assert os.fsencode(text_to_name(row["path"])) == b"x/caf\xe9.mp4"
    assert row["clip"] == r"x/caf\xe9.mp4 [1.0..2.0 sec]"


def test_long_paths_are_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    video = "/a/rather/long/folder/of/videos/" + "x" * 80 + ".mp4"
    print_table([Prediction(video, (("somersault", 0.5),))])
    cells = [
        line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines() if "│" in line
    ]
    assert "".join(cells) == video


NAMES = ["vault", "beam, turn", "floor", "bars", "rings", "pommel"]
NUM_TRAIN = [300, 120, 50, 30, 12, 3]
GROUPS = long_tail_groups(NUM_TRAIN)


def predictions() -> Predictions:
    """Five clips of the split's seven, none of `bars`."""
    scores = np.array(
        [
            [0.50, 0.30, 0.10, 0.05, 0.03, 0.02],  # vault, right
            [0.40, 0.35, 0.10, 0.08, 0.05, 0.02],  # beam, turn: second
            [0.40, 0.30, 0.10, 0.08, 0.07, 0.05],  # beam, turn: second
            [0.05, 0.10, 0.60, 0.10, 0.10, 0.05],  # floor, right
            [0.30, 0.25, 0.20, 0.15, 0.07, 0.03],  # pommel, sixth
        ]
    )
    return Predictions(np.array([0, 1, 2, 4, 6]), np.array([0, 1, 1, 2, 5]), scores)


def clips_of(label: list[int]) -> list[Clip]:
    return [Clip(Path(f"{i}.mp4"), k, NAMES[k], Segment(i, i + 1)) for i, k in enumerate(label)]


def test_the_table_has_a_row_for_each_clip_with_its_id() -> None:
    table = predictions_table(clips_of([0, 1, 1, 1, 2, 2, 5]), NAMES, predictions())
    assert table["clip"].tolist() == [f"{i}.mp4 [{i}..{i + 1} sec]" for i in (0, 1, 2, 4, 6)]
    assert table["class"].tolist() == [NAMES[i] for i in (0, 1, 1, 2, 5)]
    assert table["predicted"].tolist() == [NAMES[i] for i in (0, 0, 0, 2, 0)]
    assert table["probability"].tolist() == [0.5, 0.4, 0.4, 0.6, 0.3]
    assert table["probability_of_class"].tolist() == [0.5, 0.35, 0.3, 0.6, 0.03]
    assert table["rank_of_class"].tolist() == [1, 2, 2, 1, 6]


def test_all_numbers_follow_from_the_written_predictions(tmp_path: Path) -> None:
    written = tmp_path / "predictions.csv"
    predictions_table(clips_of([0, 1, 1, 1, 2, 2, 5]), NAMES, predictions()).to_csv(written)
    table, found = pd.read_csv(written), summary(predictions(), GROUPS)
    right = table["class"] == table["predicted"]
    by_class = right.groupby(table["class"]).mean()
    assert found["top1"] == pytest.approx(right.mean()) == 2 / 5
    assert found["top5"] == pytest.approx((table["rank_of_class"] <= 5).mean()) == 4 / 5
    assert found["mca"] == pytest.approx(by_class.mean()) == 2 / 4
    assert found["head"] == pytest.approx(by_class[["vault", "beam, turn"]].mean()) == 1 / 2
    assert found["medium"] == 1  # floor; bars has no clip
    assert found["tail"] == 0  # pommel; rings has no clip
    assert found["num_clips"] == len(table) == 5
    assert found["groups"] == {
        "head": {"num_classes": 2, "num_clips": 3},
        "medium": {"num_classes": 1, "num_clips": 1},
        "tail": {"num_classes": 1, "num_clips": 1},
    }
    assert found["intervals"].keys() == {"top1", "top5", "mca", "head", "medium", "tail"}
    for name, ends in found["intervals"].items():
        if name in ("top1", "top5"):
            assert 0 <= ends[0] <= found[name] <= ends[1] <= 1
        else:
            assert ends is None  # of 5 clips
    found["num_listed"] = 7
    assert "MCA 50.0% [fewer than 10 clips], head classes" in headline(found)


def test_intervals_hold_the_accuracies() -> None:
    _, label, probabilities = predictions()
    many = Predictions(np.arange(50), label.repeat(10), probabilities.repeat(10, axis=0))
    found = summary(many, GROUPS)
    for name, (low, high) in found["intervals"].items():
        assert 0 <= low <= found[name] <= high <= 1


def test_a_report_of_no_clips_is_valid_json() -> None:
    found = summary(Predictions(*(part[:0] for part in predictions())), GROUPS)
    assert found["top1"] is found["mca"] is found["intervals"]["top1"] is None
    json.dumps(found, allow_nan=False)
    assert headline({**found, "num_listed": 7}).endswith("MCA of no clips")


def test_classes_one_by_one(tmp_path: Path) -> None:
    class_table(NAMES, predictions(), NUM_TRAIN, GROUPS).to_csv(tmp_path / "c.csv", index=False)
    table = pd.read_csv(tmp_path / "c.csv", keep_default_na=False, dtype=str)
    assert table.values.tolist() == [
        ["vault", "head", "300", "1", "1.0", "1.0", "", "0"],
        ["beam, turn", "head", "120", "2", "0.0", "1.0", "vault", "2"],
        ["floor", "medium", "50", "1", "1.0", "1.0", "", "0"],
        ["bars", "medium", "30", "0", "", "", "", "0"],
        ["rings", "tail", "12", "0", "", "", "", "0"],
        ["pommel", "tail", "3", "1", "0.0", "0.0", "vault", "1"],
    ]
    assert list(table) == [
        *("class", "group", "num_train", "num_test", "top1", "top5"),
        *("most_confused_with", "times_confused"),
    ]


def test_the_closing_line() -> None:
    metrics = {
        **{"top1": 0.937037, "top5": 1.0, "mca": 0.93},
        "num_clips": 270,
        "num_listed": 271,
        "intervals": {"top1": [0.9037, 0.963], "top5": [1.0, 1.0], "mca": [0.901, 0.9555]},
        "groups": {"medium": {"num_classes": 18, "num_clips": 270}},
    }
    line = (
        "270 of 271 test clips: Top-1 93.7% [90.4, 96.3], Top-5 100.0% [100.0, 100.0], "
        "MCA 93.0% [90.1, 95.5]"
    )
    metrics["medium"], metrics["intervals"]["medium"] = 0.93, [0.901, 0.9555]
    assert headline(metrics) == line  # of one group, the number is the MCA
    metrics["tail"], metrics["intervals"]["tail"] = 0.5, [0.2, 0.8]
    metrics["groups"]["tail"] = {"num_classes": 1, "num_clips": 4}
    groups = "medium classes 93.0% [90.1, 95.5], tail classes 50.0% [20.0, 80.0]"
    assert headline(metrics) == f"{line}, {groups}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tail_below": 200}, r"tail_below must be from 0 to head_above \+ 1 = 101 \(got 200\)"),
        ({"num_resamples": 0}, r"num_resamples must be a positive integer \(got 0\)"),
        ({"seed": -1}, r"seed must not be negative \(got -1\)"),
        ({"confidence": 95}, r"confidence must lie between 0 and 1 \(got 95\)"),
    ],
)
def test_mistakes_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TestReport(**options)
