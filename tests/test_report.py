from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from taghead.prediction import Prediction, print_table
from taghead.report import confusion_matrix, contact_sheet

ODD = ["a$\\bad$", "[/b] [bold]c", "{0} %s"]


def test_names_are_drawn_and_printed_as_they_are(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = sorted((dataset / "videos").rglob("test_*.mp4"))[:3]
    table = pd.DataFrame(
        {
            "path": [str(clip) for clip in clips],
            "class": ODD,
            "predicted": [ODD[0], ODD[0], ODD[2]],
            "probability": [0.9, 0.8, 0.7],
            "probability_of_class": [0.9, 0.1, 0.7],
        }
    )
    confusion_matrix(table, ODD, tmp_path / "matrix.png")
    contact_sheet(table, tmp_path / "sheet.png")
    for name in ("matrix.png", "sheet.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 100
    print_table([Prediction("[/b].mp4", tuple((name, 0.5) for name in ODD))])
    printed = capsys.readouterr().out
    assert "[/b].mp4" in printed
    assert all(name in printed for name in ODD)


def test_long_paths_are_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    video = "/a/rather/long/folder/of/videos/" + "x" * 80 + ".mp4"
    print_table([Prediction(video, (("somersault", 0.5),))])
    cells = [
        line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines() if "│" in line
    ]
    assert "".join(cells) == video
