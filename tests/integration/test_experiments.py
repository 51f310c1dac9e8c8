import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from arranged import arranged
from authors import small_backbone
from lightning.pytorch.cli import LightningArgumentParser

from taghead import TAGHead, VideoClassifier
from taghead.backbones import build_backbone
from taghead.backbones.build import BACKBONES
from taghead.cli import main
from taghead.data import SynthGym
from taghead.data.synthetic import write_dataset
from taghead.features.extract import write_features
from taghead.graph import Grid
from taghead.model.head_factory import HeadFactory
from taghead.model.released import Preset, preset_preprocessing
from taghead.sweep import read_sweep
from taghead.sweep.run import check_configs
from taghead.video import Preprocessing

FOLDER = Path(__file__).parents[2] / "experiments"
FILES = sorted(FOLDER.rglob("*.yaml"))
SWEEPS = [file for file in FILES if "factors" in yaml.safe_load(file.read_text())]
SWEPT = ["operators", "ablation", "graphs", "end_to_end"]
EXTRACTIONS = sorted(FOLDER.glob("features/*.yaml"))
EXPERIMENTS = [file for file in FILES if file not in [*SWEEPS, *EXTRACTIONS]]
SIZES = {"num_train": 36, "num_val": 18, "num_test": 18}
CLASSES = {"haa500": 500, "gym99": 99, "gym288": 288, "diving48": 48, "modern": 99}
SMALL_CLIPS = [
    "--data.preprocessing.num_frames=8",
    "--data.preprocessing.resize=32",
    "--data.preprocessing.crop=32",
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["taghead"])
    return tmp_path


@pytest.fixture(scope="module")
def features(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips' features."""
    root = tmp_path_factory.mktemp("features")
    preprocessing = Preprocessing(num_frames=4, resize=32, crop=32)
    data = SynthGym(str(dataset), preprocessing=preprocessing, num_workers=0, **SIZES)
    write_features(root, build_backbone("r2plus1d_tiny"), data)
    return root


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def published_options(name: str, dataset: Path, root: Path) -> list[str]:
    """Where an experiment on a published dataset finds small clips, arranged as its own."""
    video = next(dataset.rglob("*.mp4"))
    given = arranged(root, video, read(name)["data"]["init_args"]["format"], CLASSES[name])
    return [
        *(f"--data.{key}={value}" for key, value in given.items()),
        *SMALL_CLIPS,
        "--model.backbone_weights=null",
    ]


def options_here(config: Path, dataset: Path, features: Path, root: Path) -> list[str]:
    """Where an experiment finds its data here."""
    kind = read(config.stem)["data"]["class_path"]
    if kind.endswith("FeatureDataModule"):
        return [f"--data.root={features}"]
    if kind.endswith("SynthGym"):
        return [f"--data.root={dataset}", *(f"--data.{k}={v}" for k, v in SIZES.items())]
    return published_options(config.stem, dataset, root)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes a small backbone for R(2+1)D-34, which is trained as it is on Gym99 below."""
    spec = replace(BACKBONES["r2plus1d_34"], build=small_backbone, features=lambda network: network)
    monkeypatch.setitem(BACKBONES, "r2plus1d_34", spec)


@pytest.mark.parametrize("config", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_takes_a_step(
    config: Path, dataset: Path, features: Path, folder: Path, small: None
) -> None:
    main(
        [
            "fit",
            f"--config={config}",
            "--trainer.fast_dev_run=1",
            "--trainer.accelerator=cpu",
            "--data.num_workers=0",
            "--data.batch_size=2",
            *options_here(config, dataset, features, folder),
        ]
    )


def test_the_saved_config_of_an_operator_with_a_module_among_its_defaults(features: Path) -> None:
    main(
        [
            "fit",
            f"--config={FOLDER / 'features.yaml'}",
            "--model.head.conv=torch_geometric.nn.ResGatedGraphConv",
            f"--data.root={features}",
            "--trainer.max_epochs=1",
            "--trainer.limit_train_batches=1",
        ]
    )
    (saved,) = Path("runs").rglob("config.yaml")
    (checkpoint,) = Path("runs").rglob("best.ckpt")
    conv = yaml.safe_load(saved.read_text())["model"]["head"]["init_args"]["conv"]
    assert conv == "torch_geometric.nn.ResGatedGraphConv"
    main(["validate", f"--config={saved}", f"--ckpt_path={checkpoint}"])


@pytest.mark.parametrize("config", EXTRACTIONS, ids=lambda path: path.stem)
def test_the_features_of_the_sweeps_are_extracted(
    config: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = yaml.safe_load(config.read_text())["data"]["init_args"]
    splits = {"train": 18, "val": 18, "test": 18}  # each class once
    write_dataset(Path(data["root"]).parent, splits=splits, family=config.stem, num_workers=0)
    model = VideoClassifier(
        backbone := build_backbone("r2plus1d_tiny"),
        TAGHead(backbone.channels, 2, backbone.grid(16, 48), channels=16),
        ["one", "other"],
        Preprocessing(**data["preprocessing"]),
    )
    model.save_pretrained("model")
    main(["extract", "cache", f"--config={config}", "--model=model"])
    assert "test: 18 of 18 clips" in capsys.readouterr().out


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_run_of_a_sweep_has_a_head_that_runs(file: Path) -> None:
    runs = read_sweep(file).runs()
    assert len({run.seed for run in runs}) >= 5
    assert {run.is_control for run in runs} == {True, False}
    feature_map = torch.randn(1, 64, 2, 3, 3)
    for run in runs:
        if run.seed == runs[0].seed:
            options = run.config["model"]["head"]["init_args"]
            head = TAGHead(64, 5, Grid(2, 3, 3), **options).eval()
            assert head(feature_map).shape == (1, 5)


@pytest.mark.parametrize("folder_name", SWEPT)
def test_every_level_of_a_sweep_is_a_config_of_fit(folder_name: str, features: Path) -> None:
    sweep = read_sweep(FOLDER / folder_name / "order.yaml")
    sweep = replace(sweep, set={**sweep.set, "data.root": str(features)})
    seen: set[tuple[str, str]] = set()
    chosen = []
    for run in reversed(sweep.runs()):
        if not seen.issuperset(run.levels.items()):
            seen.update(run.levels.items())
            chosen.append(run)
    assert len(seen) == sum(map(len, sweep.factors.values()))
    check_configs(sweep, chosen)


@pytest.mark.parametrize("folder_name", ["operators", "graphs", "end_to_end"])
def test_a_sweep_is_the_same_on_both_sets_of_clips(folder_name: str) -> None:
    order = read_sweep(FOLDER / folder_name / "order.yaml")
    other = read_sweep(FOLDER / folder_name / "somersault.yaml")
    assert (order.factors, order.seeds, order.base) == (other.factors, other.seeds, other.base)
    differ = [key for key in order.set if order.set[key] != other.set[key]]
    assert set(differ) <= {"data.root", "data.family"}
    assert len({run.id for run in [*order.runs(), *other.runs()]}) == 2 * len(order.runs())


@pytest.mark.parametrize(
    ("name", "frames", "epochs", "width"),
    [("haa500", 32, 80, 512), ("gym99", 64, 60, 1024), ("gym288", 64, 60, 2048)],
)
def test_the_papers_numbers(name: Preset, frames: int, epochs: int, width: int) -> None:
    config = read(name)
    assert config["trainer"]["max_epochs"] == epochs
    assert config["trainer"]["devices"] == 1
    data = config["data"]["init_args"]
    assert (data["batch_size"], data["format"]) == (8, "reference")
    preprocessing = Preprocessing.from_dict(data["preprocessing"])
    assert preprocessing == Preprocessing(
        num_frames=frames,
        resize=128,
        crop=112,
        mean=(0.45,) * 3,
        std=(0.225,) * 3,
        flip=0.5,
        random_crop=True,
        sampling="uniform",
    )
    assert preprocessing == preset_preprocessing(name)
    model = {key: value for key, value in config["model"].items() if key != "head"}
    assert model == {
        "backbone": "r2plus1d_34",
        "backbone_weights": "DEFAULT",
        "optimizer": "adam",
        "learning_rate": 1e-5,
        "weight_decay": 0.0,
        "warmup": 0.0,
        "loss": "cross_entropy",
        "label_smoothing": 0.0,
    }
    assert next(iter(BACKBONES["r2plus1d_34"].weights)) == "IG65M_CLIP32"
    options = config["model"]["head"]["init_args"]
    assert options["encoder_channels"] == width
    assert options["conv"]["init_args"] == {"K": 2, "alpha": 0.1}


@pytest.mark.parametrize("name", ["haa500", "gym99", "gym288"])
def test_the_papers_head(name: Preset) -> None:
    parser = LightningArgumentParser()
    parser.add_argument("--head", type=HeadFactory)
    factory = parser.instantiate(parser.parse_object({"head": read(name)["model"]["head"]})).head
    paper = TAGHead.paper(name)
    head = factory(512, CLASSES[name], paper.grid)
    # what the backbone is said to give for the experiment's clips
    grid = Grid(read(name)["data"]["init_args"]["preprocessing"]["num_frames"] // 8, 7, 7)
    assert paper.grid == grid
    assert head.config() == paper.config()
    assert head.config()["conv"]["init_args"] == {"K": 2, "alpha": 0.1}
    shapes = {key: value.shape for key, value in head.state_dict().items()}
    assert shapes == {key: value.shape for key, value in paper.state_dict().items()}
    head.load_state_dict(paper.state_dict())
    feature_map = torch.randn(1, 512, *(grid.frames, grid.height, grid.width))
    assert torch.equal(head.eval()(feature_map), paper.eval()(feature_map))


@pytest.mark.parametrize("backbone", [None, "slowfast_r50"])
def test_gym99_trains_and_tests_with_any_backbone(
    backbone: str | None, dataset: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if backbone == "slowfast_r50":
        pytest.importorskip("pytorchvideo", reason="needs the extra [slowfast]")
    options = [
        f"--config={FOLDER / 'gym99.yaml'}",
        *published_options("gym99", dataset, folder),
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.limit_test_batches=5",
        "--data.num_workers=0",
        "--data.batch_size=2",
        *([] if backbone is None else [f"--model.backbone={backbone}"]),
    ]
    cut_short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
    main(["fit", *options, *cut_short, "--trainer.limit_val_batches=1"])
    best = folder / "runs/gym99/version_0/checkpoints/best.ckpt"
    saved = torch.load(best, weights_only=True)
    assert saved["global_step"] == 2
    assert saved["video_classifier"]["backbone"] == (backbone or "r2plus1d_34")
    capsys.readouterr()
    main(["test", *options, f"--ckpt_path={best}"])
    printed = capsys.readouterr().out
    assert "10 of 99 test clips: Top-1 " in printed
    assert "MCA" in printed
