"""`limits` reach every command that reads videos: larger ones are refused, and read if raised."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from faulty import write_clip
from PIL import Image
from tiny import make_model

from taghead.cli import main

LARGE = 9536  # a frame has 90.9 million pixels
REFUSED = "its frames of 9536x9536 have 90,935,296 pixels, more than limits.max_pixels = 89,478,485"
RAISED = ["max_pixels=91000000", f"max_clip_bytes={32 * 3 * LARGE**2}"]
SMALL = ["num_frames=4", "resize=32", "crop=32"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["taghead"])
    return tmp_path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One frame that is larger than any that is read by default."""
    path = tmp_path_factory.mktemp("large") / "videos" / "a" / "large.mp4"
    path.parent.mkdir(parents=True)
    write_clip(path.parents[1] / "b" / "small.mp4")
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = LARGE, LARGE, "yuv420p"
        frame = av.VideoFrame(LARGE, LARGE, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes([100]) * plane.buffer_size)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def model(folder: Path) -> str:
    make_model().save_pretrained(folder / "model")
    return "model"


def raised(prefix: str = "") -> list[str]:
    return [f"--{prefix}limits.{limit}" for limit in RAISED]


def test_index(large: Path) -> None:
    """A result that a limit decided holds for that limit alone."""

    def index(*options: str) -> tuple[int, str]:
        command = ["index", str(large.parents[1]), "--output=out", "--num_workers=0"]
        main([*command, *options])
        rows = pd.read_parquet("out/manifest.parquet").set_index("file")
        assert rows.loc["b/small.mp4", "reason"] == ""
        assert rows.loc["a/large.mp4", "size"] > 0
        return rows.loc["a/large.mp4", "num_frames"], rows.loc["a/large.mp4", "reason"]

    too_many_bytes = (
        "32 frames of 9536x9536 take 8,729,788,416 bytes, "
        "more than limits.max_clip_bytes = 2,147,483,648"
    )
    assert index() == (0, REFUSED)
    assert index(*raised()) == (1, "")
    assert index() == (0, REFUSED)
    assert index(raised()[0]) == (0, too_many_bytes)
    assert index(raised()[0], "--min_frames=1") == (1, "")


def test_predict(large: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["predict", str(large), f"--model={model}", "--modules=[tiny]", "--format=jsonl"]
    with pytest.raises(SystemExit, match=rf"^error: {large}: {REFUSED}$"):
        main(command)
    capsys.readouterr()
    main([*command, *raised()])
    assert len(json.loads(capsys.readouterr().out)["classes"]) == 5


def test_explain(large: Path, model: str) -> None:
    command = ["explain", str(large), f"--model={model}", "--modules=[tiny]", "--draws=0"]
    with pytest.raises(SystemExit, match=rf"^error: {large}: {REFUSED}$"):
        main(command)
    main([*command, *raised()])
    assert Path("runs/explain/attention.json").is_file()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (64, "preprocessing has no limits"),
        (2**40, r"preprocessing\.limits\.max_pixels is 1099511627776, and no tensor"),
    ],
)
def test_a_model_of_others_raises_no_limit(
    large: Path, model: str, value: int, reason: str
) -> None:
    config = Path("model/config.json")
    content = json.loads(config.read_text())
    assert "limits" not in content["preprocessing"]
    content["preprocessing"]["limits"] = {"max_pixels": value}
    config.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=reason):
        main(["predict", str(large), f"--model={model}", "--modules=[tiny]"])


@pytest.fixture
def videos(folder: Path) -> Callable[[str], list[str]]:
    """Options of a dataset with frames of 32x32 pixels, under a limit."""
    for split in ("train", "val", "test"):
        for name in "ab":
            for number in range(2):
                write_clip(folder / "videos" / split / name / f"{number}.mp4", number)
    options = [f"preprocessing.{option}" for option in SMALL]
    options += ["root=videos", "num_workers=0", "batch_size=4"]

    def under(limit: str) -> list[str]:
        return [f"--data.{o}" for o in (*options, f"preprocessing.limits.{limit}")]

    return under


TRAINER = ["max_epochs=1", "accelerator=cpu", "enable_progress_bar=false", "logger=false"]
OVER, AT = "max_pixels=1023", "max_pixels=1024"
TOO_LARGE = r"its frames of 32x32 have 1,024 pixels, more than limits\.max_pixels = 1,023"
TOO_LONG = r"4 frames of 32x32 take 12,288 bytes, more than limits\.max_clip_bytes = 12,287"


def test_fit_and_the_test_report(
    videos: Callable[[str], list[str]], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model.backbone=r2plus1d_tiny"]
    model += [f"--trainer.{option}" for option in TRAINER]
    fit = ["fit", "--data=VideoDataModule", *model]
    for limit, reason in ((OVER, TOO_LARGE), ("max_clip_bytes=12287", TOO_LONG)):
        with pytest.raises(SystemExit, match=rf"^error: videos/(train|val)/./..mp4: {reason}"):
            main([*fit, *videos(limit)])
        with pytest.raises(SystemExit, match=rf"none of its 4 clips can be read; .*{reason}$"):
            main([*fit, *videos(limit), "--data.on_error=exclude"])
    main([*fit, *videos(AT), "--data.on_error=exclude"])
    (checkpoint,) = Path("checkpoints").glob("*.ckpt")
    test = ["test", "--data=VideoDataModule", *model, f"--ckpt_path={checkpoint}"]
    test += ["--trainer.callbacks+=taghead.training.report.TestReport"]
    test += ["--trainer.callbacks.folder=report"]
    with pytest.raises(SystemExit, match=rf"^error: videos/test/./..mp4: {TOO_LARGE}"):
        main([*test, *videos(OVER)])
    main([*test, *videos("max_clip_bytes=12288")])
    assert "4 of 4 test clips" in capsys.readouterr().out


def test_the_report_opens_videos_as_the_test_does(
    videos: Callable[[str], list[str]],
    large: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from taghead.data import Clip
    from taghead.metrics import Predictions
    from taghead.training.report import contact_sheet, predictions_table
    from taghead.video import Limits

    clips = [Clip(large, 0, "a")]
    table = predictions_table(
        clips, ["a"], Predictions(np.arange(1), np.arange(1), np.ones((1, 1)))
    )
    contact_sheet(table, clips, Path("refused.png"))
    assert f"the contact sheet lacks a clip: {large}: {REFUSED}" in caplog.text
    caplog.clear()
    contact_sheet(table, clips, Path("read.png"), limits=Limits(max_pixels=91_000_000))
    assert not caplog.text
    with Image.open("refused.png") as refused, Image.open("read.png") as read:
        assert np.abs(np.asarray(refused, int) - np.asarray(read)).max() > 100


def test_extract(videos: Callable[[str], list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    from taghead import TAGHead, VideoClassifier
    from taghead.backbones import build_backbone
    from taghead.video import Preprocessing

    preprocessing = Preprocessing(num_frames=4, resize=32, crop=32)
    backbone = build_backbone("r2plus1d_tiny")
    head = TAGHead(backbone.channels, 2, backbone.grid(4, 32), encoder_layers=0)
    VideoClassifier(backbone, head, ["a", "b"], preprocessing).save_pretrained("model")
    command = ["extract", "features", "--data=VideoDataModule", "--model=model"]
    with pytest.raises(SystemExit, match=TOO_LARGE):
        main([*command, *videos(OVER)])
    main([*command, *videos(AT)])
    assert "train: 4 of 4 clips" in capsys.readouterr().out
    capsys.readouterr()
    cached = ["--data=taghead.features.FeatureDataModule", "--data.root=features"]
    with pytest.raises(SystemExit):
        main(["fit", *cached, "--data.limits.max_pixels=64", "--print_config"])
    assert "max_pixels: 64" in capsys.readouterr().out
