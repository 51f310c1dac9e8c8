import json
from pathlib import Path

import pytest
from PIL import Image

from taghead.demo import demo
from taghead.model.pretrained import load_model


def test_the_demo_in_small(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = []
    for run in ("one", "two"):
        demo(str(dataset), str(tmp_path / run), 1, num_train=36, num_val=18, num_test=18)
        metrics.append(json.loads((tmp_path / run / "metrics.json").read_text()))
    assert metrics[0] == metrics[1]  # the same seed gives the same numbers
    assert metrics[0]["num_clips"] == 18
    out = capsys.readouterr().out
    assert "18 of 18 test clips: Top-1" in out
    assert "One clip of the test split" in out
    for name in ("confusion_matrix.png", "contact_sheet.png"):
        with Image.open(tmp_path / "one" / name) as picture:
            assert min(picture.size) > 200
    assert len(load_model(tmp_path / "one" / "model.ckpt").class_names or ()) == 18
