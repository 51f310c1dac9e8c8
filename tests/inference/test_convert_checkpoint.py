"""From a checkpoint to a folder, to a prediction and to a test, on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from authors import Reference, reference, released
from tiny import make_model

from taghead import VideoClassifier
from taghead.cli import main
from taghead.errors import DataError
from taghead.inference.convert_checkpoint import convert
from taghead.model.pretrained import load_model, save_checkpoint

PAPER_HEAD = [
    "--model.head=taghead.TAGHead",
    "--model.head.positions_std=1.0",
    "--model.head.encoder_layers=2",
    "--model.head.encoder_channels=1024",
    "--model.head.encoder_norm=post",
    "--model.head.encoder_dropout=0.5",
    "--model.head.mode=union",
    "--model.head.relations=[intra_frame, time_aligned]",
    "--model.head.conv=torch_geometric.nn.APPNP",
    "--model.head.conv.K=2",
    "--model.head.conv.alpha=0.1",
    "--model.head.graph_norm=null",
    "--model.head.graph_activation=null",
    "--model.head.graph_dropout=0.0",
    "--model.head.graph_residual=false",
]


@pytest.fixture
def authors(small: None, tmp_path: Path) -> Reference:
    """The authors' model of 99 classes, released as `gym99.pth`."""
    model = reference("gym99")
    torch.save(released(model, "csnmodel", nested=True), tmp_path / "gym99.pth")
    return model


@pytest.fixture
def folder(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset of 99 classes, not sorted by class as FineGym's: each the same clip."""
    video = next(dataset.rglob("*.mp4"))
    rows = ["FileName,Class,TotalFrames,ClassEncoded"]
    for number in range(99):
        name = str(200 + (number * 7) % 99)
        (tmp_path / "videos" / name).mkdir(parents=True)
        (tmp_path / "videos" / name / "a.mp4").symlink_to(video)
        rows.append(f"a.mp4,{name},20,{number}")
    (tmp_path / "train.csv").write_text("\n".join([rows[0], *reversed(rows[1:])]) + "\n")
    (tmp_path / "val.csv").write_text("\n".join([rows[0], *rows[40:44]]) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def expected(authors: Reference, video: Path) -> torch.Tensor:
    """What the authors' model makes of a video."""
    clip = load_model("gym99").preprocessing.load(video)  # type: ignore[union-attr]
    with torch.no_grad():
        return authors(clip.unsqueeze(0)).softmax(dim=1)[0]


def test_a_released_file_predicts_what_the_authors_model_does(
    authors: Reference, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["convert", "gym99.pth", "gym99", "--preset=gym99", "--classes=train.csv"])
    assert capsys.readouterr().out == "gym99: 99 classes, with names\n"
    video = folder / "videos/200/a.mp4"
    main(["predict", str(video), "--model=gym99", "--top=3", "--format=jsonl"])
    (line,) = capsys.readouterr().out.splitlines()
    best = expected(authors, video).topk(3)
    names = [str(200 + (number * 7) % 99) for number in best.indices.tolist()]
    predicted = json.loads(line)["classes"]
    assert [entry["class"] for entry in predicted] == names
    found = torch.tensor([entry["probability"] for entry in predicted])
    torch.testing.assert_close(found, best.values, rtol=0, atol=2e-6)


def test_a_released_file_is_tested_like_any_checkpoint(
    authors: Reference, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["convert", "gym99.pth", "gym99", "--preset=gym99"])
    assert capsys.readouterr().out == "gym99: 99 classes, without names\n"
    main(["convert", "gym99.pth", "runs/gym99.ckpt", "--preset=gym99", "--classes=train.csv"])
    assert [path.name for path in (folder / "runs").iterdir()] == ["gym99.ckpt"]
    args = [
        "--data=taghead.data.VideoDataModule",
        "--data.root=videos",
        "--data.train=train.csv",
        "--data.val=val.csv",
        "--data.test=val.csv",
        "--data.num_workers=0",
        "--data.batch_size=2",
        "--data.preprocessing.num_frames=64",
        "--model.backbone=r2plus1d_34",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.callbacks=taghead.training.TestReport",
        "--trainer.callbacks.folder=report",
    ]
    main(["test", *args, *PAPER_HEAD, "--ckpt_path=runs/gym99.ckpt"])
    table = (folder / "report/predictions.csv").read_text().splitlines()
    assert len(table) == 1 + 4
    best = int(expected(authors, folder / "videos/200/a.mp4").argmax())
    assert all(str(200 + (best * 7) % 99) in line.split(",") for line in table[1:])
    main(["convert", "runs/gym99.ckpt", "shared", "--metrics=report/metrics.json"])
    metrics = json.loads((folder / "report/metrics.json").read_text())
    saved = VideoClassifier.from_pretrained("shared").metrics
    assert saved == {name: n for name, n in metrics.items() if isinstance(n, int | float)}
    assert {"top1", "top5", "mca", "num_clips"} <= saved.keys()
    assert f"| mca | {metrics['mca']:g} |" in (folder / "shared/README.md").read_text()


def test_a_checkpoint_of_other_classes_is_refused_by_the_test(
    authors: Reference, folder: Path
) -> None:
    (folder / "classes.txt").write_text("\n".join(f"element {i}" for i in range(99)))
    convert("gym99.pth", "gym99.ckpt", preset="gym99", classes="classes.txt")
    args = [
        "--data=taghead.data.VideoDataModule",
        "--data.root=videos",
        "--data.train=train.csv",
        "--data.val=val.csv",
        "--data.test=val.csv",
        "--data.num_workers=0",
        "--data.preprocessing.num_frames=64",
        "--model.backbone=r2plus1d_34",
        "--trainer.accelerator=cpu",
        "--trainer.logger=false",
    ]
    with pytest.raises(SystemExit, match="the checkpoint's classes are not those of the data"):
        main(["test", *args, *PAPER_HEAD, "--ckpt_path=gym99.ckpt"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"preset": None},
            "a released TAG-Head checkpoint: `taghead convert` takes it, with --pre",
        ),
        ({"preset": "gym288"}, "not a checkpoint of gym288: .*; it fits preset=gym99"),
        ({"classes": "two.txt"}, r"two.txt: must name 99 classes \(got 2\)"),
        ({"classes": "two.csv"}, r"two.csv: must name 99 classes \(got 2\)"),
        ({"classes": "none.txt"}, "none.txt"),
        ({"metrics": "list.json"}, "list.json: must hold numbers by name"),
        ({"metrics": "two.txt"}, "two.txt: not JSON: line 1"),
        ({"source": "none.pth"}, "none.pth: no such"),
        ({"source": "none.pth", "preset": None}, "none.pth: no such"),
        ({"source": "two.txt", "preset": None}, "two.txt: not a checkpoint of this package"),
    ],
)
def test_what_cannot_be_converted_leaves_nothing(
    authors: Reference,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.txt").write_text("one\ntwo\n")
    Path("two.csv").write_text("FileName,Class,TotalFrames,ClassEncoded\na,b,1,0\na,c,1,1\n")
    Path("list.json").write_text("[1]")
    arguments = {"source": "gym99.pth", "output": "out", "preset": "gym99", **options}
    with pytest.raises(DataError, match=message) as error:
        convert(**arguments)
    assert "\n" not in str(error.value)
    assert not Path("out").exists()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: float
) -> None:
    monkeypatch.chdir(tmp_path)
    model = make_model()
    with torch.no_grad():
        next(model.head.classifier.parameters()).view(-1)[-1] = number
    save_checkpoint(model, "bad.ckpt")
    for output in ("shared", "copy.ckpt"):
        with pytest.raises(SystemExit) as stop:
            main(["convert", "bad.ckpt", output, "--modules=tiny"])
        assert str(stop.value.code) == (
            "error: bad.ckpt: weights are not finite, the first of 1: head.classifier.0.weight; "
            "no model is written of them"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["bad.ckpt"]
