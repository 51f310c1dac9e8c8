import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from taghead.cli import main
from taghead.model.classifier import VideoClassifier
from taghead.video import Preprocessing

CONFIG = Path(__file__).parents[2] / "experiments" / "synthgym.yaml"
SMALL = [
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--data.num_train=36",
    "--data.num_val=18",
    "--data.num_test=18",
    "--data.batch_size=6",
    "--data.num_workers=0",
    "--data.preprocessing.num_frames=8",
    "--data.preprocessing.resize=32",
    "--data.preprocessing.crop=32",
]
TORCH_GEOMETRIC = "--model.head.conv=torch_geometric.nn."


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["taghead"])
    return tmp_path


def fit(dataset: Path, *args: str) -> None:
    main(["fit", f"--config={CONFIG}", f"--data.root={dataset}", *SMALL, *args])


@pytest.mark.parametrize(
    "swap",
    [
        ["TransformerConv", "--model.head.conv.heads=4"],
        ["GATv2Conv", "--model.head.conv.heads=4"],
        ["GATConv", "--model.head.conv.heads=2"],
        ["SAGEConv"],
        ["GCNConv"],
        ["GINConv"],
        ["GCN2Conv", "--model.head.conv.alpha=0.1"],
        ["RGCNConv", "--model.head.conv.num_relations=3", "--model.head.mode=edge_type"],
        [
            "APPNP",
            "--model.head.conv.K=2",
            "--model.head.conv.alpha=0.1",
            "--model.head.mode=union",
        ],
    ],
    ids=lambda swap: swap[0],
)
def test_swapping_the_operator_is_one_flag(dataset: Path, folder: Path, swap: list[str]) -> None:
    fit(dataset, TORCH_GEOMETRIC + swap[0], *swap[1:])
    run = folder / "runs/synthgym/version_0"
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    conv = checkpoint["video_classifier"]["head"]["conv"]
    assert conv["class_path"] == f"torch_geometric.nn.{swap[0]}"
    saved = yaml.safe_load((run / "config.yaml").read_text())
    conv = saved["model"]["head"]["init_args"]["conv"]  # as it was given
    assert (conv["class_path"] if swap[1:] else conv) == TORCH_GEOMETRIC.partition("=")[2] + swap[0]


def test_controls_motion_and_features_are_options(dataset: Path, folder: Path) -> None:
    relations = ["shuffled_1_intra", "motion_1p"]
    options = {"relations": relations, "edge_features": "offset", "edge_dropout": 0.2}
    given = {**options, "relations": f"[{', '.join(relations)}]"}
    fit(dataset, *(f"--model.head.{name}={value}" for name, value in given.items()))
    last = folder / "runs/synthgym/version_0/checkpoints/last.ckpt"
    head = VideoClassifier.from_checkpoint(last).head
    assert {name: head.config()[name] for name in options} == options


def test_relations_are_a_list_of_names(dataset: Path, folder: Path) -> None:
    relations = ["intra_frame", "past_1f", "time_2f", "window_1p"]
    fit(dataset, f"--model.head.relations=[{', '.join(relations)}]")
    run = folder / "runs/synthgym/version_0"
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["model"]["head"]["init_args"]["relations"] == relations
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["video_classifier"]["head"]["relations"] == relations
    model = VideoClassifier.from_checkpoint(run / "checkpoints/last.ckpt")
    assert [relation.name for relation in model.head.relations] == relations


@pytest.mark.parametrize(
    ("relations", "message"),
    [
        ("[past, sideways]", "relation must be one of intra_frame, .*window_Np.*'sideways'"),
        ("[spatial_window(reach=1)]", r"no argument 'reach'; write window_1p or spatial_window\("),
        ("[past, past]", "relations: 'past_1f' is listed twice"),
        ("[]", "relations must not be empty in mode per_relation"),
    ],
)
def test_relations_that_do_not_exist(dataset: Path, relations: str, message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        fit(dataset, f"--model.head.relations={relations}")


def test_sampling_views_loss_and_balance_are_options(dataset: Path, folder: Path) -> None:
    fit(
        dataset,
        "--data.preprocessing.sampling=dense",
        "--data.preprocessing.stride=2",
        "--data.preprocessing.test_clips=2",
        "--data.class_balance=0.5",
        "--model.loss=logit_adjustment",
        "--model.tau=0.5",
    )
    run = folder / "runs/synthgym/version_0"
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert (saved["model"]["loss"], saved["model"]["tau"]) == ("logit_adjustment", 0.5)
    assert saved["data"]["init_args"]["class_balance"] == 0.5
    checkpoint = run / "checkpoints/last.ckpt"
    preprocessing = VideoClassifier.from_checkpoint(checkpoint).preprocessing
    assert preprocessing == Preprocessing(
        8, 32, 32, flip=0.0, random_crop=False, sampling="dense", stride=2, test_clips=2
    )
    main(["test", f"--config={run}/config.yaml", f"--ckpt_path={checkpoint}"])
    metrics = json.loads((folder / "runs/synthgym/version_1/test/metrics.json").read_text())
    assert metrics["num_clips"] == 18


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--data.preprocessing.stride=2", r"stride is for sampling dense \(got stride 2"),
        ("--data.preprocessing.test_crops=2", r"test_crops must be 1 or 3 \(got 2\)"),
        ("--data.class_balance=2", r"class_balance must be from 0 to 1 \(got 2.0\)"),
        ("--model.tau=2", r"tau is for loss logit_adjustment"),
    ],
)
def test_options_that_do_not_fit_are_told_in_a_line(
    dataset: Path, option: str, message: str
) -> None:
    with pytest.raises(SystemExit, match=f"^error: {message}"):
        fit(dataset, option)


def test_without_a_graph(dataset: Path, folder: Path) -> None:
    fit(dataset, "--model.head.mode=none")
    checkpoint = torch.load(
        folder / "runs/synthgym/version_0/checkpoints/last.ckpt", weights_only=True
    )
    assert not any("layers" in key for key in checkpoint["state_dict"] if "encoder" not in key)


def test_an_operator_of_ones_own(
    dataset: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "my_operators.py").write_text(
        "import torch\n"
        "from torch_geometric.nn import MessagePassing\n"
        "class Sum(MessagePassing):\n"
        "    def __init__(self, in_channels: int, out_channels: int, scale: float = 1.0):\n"
        "        super().__init__(aggr='sum')\n"
        "        self.lin = torch.nn.Linear(in_channels, out_channels)\n"
        "        self.scale = scale\n"
        "    def forward(self, x, edge_index):\n"
        "        return self.scale * self.propagate(edge_index, x=self.lin(x))\n"
    )
    given = ["--model.head.conv=my_operators.Sum", "--model.head.conv.scale=0.1"]
    with pytest.raises(SystemExit):
        fit(dataset, *given)
    assert "my_operators.Sum is not allowed: " in capsys.readouterr().err
    assert "my_operators" not in sys.modules
    fit(dataset, *given, "--modules=my_operators")  # of the working folder
    run = folder / "runs/synthgym/version_0"
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    conv = checkpoint["video_classifier"]["head"]["conv"]
    assert conv["class_path"] == "my_operators.Sum"
    assert conv["init_args"]["scale"] == 0.1


def test_fit_test_predict(dataset: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(dataset)
    run = folder / "runs/synthgym/version_0"
    assert {"config.yaml", "metrics.csv"} <= {path.name for path in run.iterdir()}
    assert any(path.name.startswith("events") for path in run.iterdir())
    checkpoint = run / "checkpoints/last.ckpt"

    main(["test", f"--config={run}/config.yaml", f"--ckpt_path={checkpoint}"])
    assert "18 of 18 test clips: Top-1 " in capsys.readouterr().out
    report = folder / "runs/synthgym/version_1/test"
    metrics = json.loads((report / "metrics.json").read_text())
    table = pd.read_csv(report / "predictions.csv")
    assert metrics["num_clips"] == metrics["num_listed"] == len(table) == 18
    hits = table["class"] == table["predicted"]
    assert metrics["top1"] == pytest.approx(hits.mean(), abs=1e-6)
    assert metrics["mca"] == pytest.approx(hits.groupby(table["class"]).mean().mean(), abs=1e-6)
    assert metrics["top5"] == pytest.approx((table["rank_of_class"] <= 5).mean(), abs=1e-6)
    logged = pd.read_csv(folder / "runs/synthgym/version_1/metrics.csv").iloc[-1]
    for name in ("top1", "top5", "mca", "num_clips", "num_listed"):
        assert metrics[name] == pytest.approx(logged[f"test/{name}"], abs=1e-6)
    by_class = pd.read_csv(report / "per_class.csv")
    assert by_class["num_train"].sum() == 36
    assert by_class["top1"].mean() == pytest.approx(metrics["mca"], abs=1e-5)
    for name in ("confusion_matrix.png", "contact_sheet.png"):
        with Image.open(report / name) as picture:
            assert min(picture.size) > 200

    clips = table["path"].tolist()[:2]
    main(["predict", *clips, f"--model={checkpoint}", "--top=18", "--format=jsonl"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["video"] for line in lines] == clips
    for line, row in zip(lines, table.itertuples(), strict=False):
        assert line["classes"][0]["class"] == row.predicted
        assert line["classes"][0]["probability"] == pytest.approx(row.probability, abs=1e-4)
        assert sum(c["probability"] for c in line["classes"]) == pytest.approx(1, abs=1e-4)
    main(["predict", *clips, f"--model={checkpoint}", "--output=out/predictions.jsonl"])
    assert "probability" in capsys.readouterr().out
    written = (folder / "out/predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["video"] for line in written] == clips


def test_a_video_that_cannot_be_read_hides_no_other(
    dataset: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(dataset)
    checkpoint = folder / "runs/synthgym/version_0/checkpoints/last.ckpt"
    good = next((dataset / "videos").rglob("*.mp4"))
    capsys.readouterr()
    (folder / "text.mp4").write_text("hello")
    with pytest.raises(SystemExit, match=r"error: text.mp4: .* \(1 of 2 videos failed\)"):
        main(["predict", "text.mp4", str(good), f"--model={checkpoint}", "--format=jsonl"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "error" in lines[0]
    assert len(lines[1]["classes"]) == 5


def spoil(root: Path, fault: str) -> None:
    row = pd.read_csv(root / "train.csv").iloc[5]
    clip = root / "videos" / row["Class"] / row["FileName"]
    if fault == "missing column":
        text = (root / "train.csv").read_text()
        (root / "train.csv").write_text(text.replace(",Class,", ",Klass,"))
    elif fault == "unknown class":
        text = (root / "val.csv").read_text()
        (root / "val.csv").write_text(text.replace(f",{row['Class']},", ",handstand,"))
    elif fault == "missing file":
        clip.unlink()
    elif fault == "empty file":
        clip.write_bytes(b"")
    elif fault == "half an mp4":
        clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    elif fault == "text":
        clip.write_text("this is a text file named .mp4\n")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing column", r"train.csv: column Class is missing"),
        ("unknown class", r"val.csv: unknown class 'handstand'"),
        ("missing file", r"train_\d+.mp4: no such video file"),
        ("empty file", r"train_\d+.mp4: the file is empty"),
        ("half an mp4", r"train_\d+.mp4: truncated"),
        ("text", r"train_\d+.mp4: cannot be opened as a video"),
    ],
)
def test_a_fault_in_the_data_is_told_in_a_line(
    dataset: Path, folder: Path, fault: str, message: str
) -> None:
    root = shutil.copytree(dataset, folder / "clips")
    spoil(root, fault)
    with pytest.raises(SystemExit, match=rf"^error: {root}/.*{message}") as stop:
        main(
            [
                "fit",
                f"--config={CONFIG}",
                "--data=taghead.data.VideoDataModule",
                f"--data.root={root}/videos",
                f"--data.train={root}/train.csv",
                f"--data.val={root}/val.csv",
                "--trainer.max_epochs=1",
                "--trainer.logger=false",
                "--trainer.enable_progress_bar=false",
                "--trainer.enable_model_summary=false",
                "--trainer.accelerator=cpu",
                "--data.num_workers=1",
            ]
        )
    assert "\n" not in str(stop.value.code)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["GATv2Conv", "--model.head.conv.haeds=4"], "haeds"),
        (["NoSuchConv"], "NoSuchConv"),
    ],
)
def test_a_misspelt_option_is_refused(
    dataset: Path, capsys: pytest.CaptureFixture[str], args: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        fit(dataset, TORCH_GEOMETRIC + args[0], *args[1:])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_an_option_that_does_not_fit_is_told_in_a_line(dataset: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: GATv2Conv: heads must divide the width 64"):
        fit(
            dataset,
            TORCH_GEOMETRIC + "GATv2Conv",
            "--model.head.conv.heads=7",
            "--model.head.conv.concat=true",
        )


def test_checkpoints_that_do_not_fit_are_told_in_a_line(dataset: Path, folder: Path) -> None:
    fit(dataset)
    checkpoint = folder / "runs/synthgym/version_0/checkpoints/last.ckpt"
    with pytest.raises(SystemExit, match=r"^error: nowhere.ckpt: no such checkpoint$"):
        fit(dataset, "--ckpt_path=nowhere.ckpt")
    (folder / "text.ckpt").write_text("hello")
    with pytest.raises(SystemExit, match=r"^error: text.ckpt: not a checkpoint: "):
        fit(dataset, "--ckpt_path=text.ckpt")
    with pytest.raises(SystemExit, match=r"last.ckpt: a checkpoint of another model: .*model.head"):
        fit(dataset, f"--ckpt_path={checkpoint}", "--model.head.channels=32")
    clip = next((dataset / "videos").rglob("*.mp4"))
    with pytest.raises(SystemExit, match=r"^error: device must be one of this machine \(got 'foo'"):
        main(["predict", str(clip), f"--model={checkpoint}", "--device=foo"])
    with pytest.raises(SystemExit, match=r"^error: nowhere: no such model"):
        main(["predict", str(clip), "--model=nowhere"])
    with pytest.raises(SystemExit, match=r"^error: .*Is a directory"):
        main(["predict", str(clip), f"--model={checkpoint}", f"--output={folder}"])


def test_the_reason_survives_the_libraries_around_it(dataset: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: resize must be at least crop = 64 \(got 32\)$"):
        fit(dataset, "--data.preprocessing.crop=64")


def test_the_report_counts_what_was_tested(dataset: Path, folder: Path) -> None:
    fit(dataset)
    run = folder / "runs/synthgym/version_0"
    main(
        [
            "test",
            f"--config={run}/config.yaml",
            f"--ckpt_path={run}/checkpoints/last.ckpt",
            "--trainer.limit_test_batches=2",
        ]
    )
    metrics = json.loads((folder / "runs/synthgym/version_1/test/metrics.json").read_text())
    assert (metrics["num_clips"], metrics["num_listed"]) == (12, 18)


def test_help_and_unknown_commands(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert "taghead fit --config" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["fti"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: there is no command 'fti'; did you mean fit?\n"


def test_generate(folder: Path) -> None:
    main(["generate", "clips", "--splits={train: 2, val: 1, test: 1}", "--num_workers=0"])
    assert len(list(folder.glob("clips/videos/*/*.mp4"))) == 4
    with pytest.raises(SystemExit, match=r"error: level must lie in 0\.\.1"):
        main(["generate", "more", "--level=2"])
