"""Backbones with a prefix in every command: YAML, flags, caches, checkpoints, predictions."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from needed import needs

from taghead.backbones import build_backbone
from taghead.cli import main
from taghead.features import FeatureCache
from taghead.model.pretrained import load_model

pytestmark = [needs("timm"), needs("transformers")]

CONFIG = Path(__file__).parents[2] / "experiments" / "synthgym.yaml"
SMALL = [
    *("--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    *("--trainer.accelerator=cpu", "--data.batch_size=6", "--data.num_workers=0"),
]
CLIPS = [
    *("--data.num_train=36", "--data.num_val=18", "--data.num_test=18"),
    *("--data.preprocessing.num_frames=4", "--data.preprocessing.resize=64"),
    "--data.preprocessing.crop=64",
]
LAST = Path("runs/synthgym/version_0/checkpoints/last.ckpt")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["taghead"])
    return tmp_path


@pytest.fixture
def local_model(folder: Path) -> str:
    """The name of a small model in a folder, with weights."""
    import transformers

    config = transformers.VideoMAEConfig(
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=64,
        num_frames=4,
    )
    torch.manual_seed(2)
    transformers.VideoMAEModel(config).save_pretrained(folder / "videomae")
    return "hf:videomae"


def test_from_a_flag_to_a_prediction(dataset: Path, folder: Path) -> None:
    args = [f"--config={CONFIG}", f"--data.root={dataset}", *SMALL, *CLIPS]
    main(["fit", *args, "--model.backbone=image:test_resnet"])
    model = load_model(LAST)
    assert model.config()["backbone"] == "image:test_resnet"
    assert (model.head.grid.frames, model.head.grid.height) == (4, 2)
    main(["test", *args, "--model.backbone=image:test_resnet", f"--ckpt_path={LAST}"])
    main(["fit", *args, "--model.backbone=image:test_resnet", "--trainer.max_epochs=2"])
    video = next(dataset.rglob("*.mp4"))
    main(["predict", str(video), f"--model={LAST}", "--output=predictions.json"])
    predicted = json.loads(Path("predictions.json").read_text())
    assert predicted["classes"]
    main(["convert", str(LAST), "shared"])
    card = (folder / "shared/README.md").read_text()
    assert "A image:test_resnet backbone" in card


def test_from_a_folder_through_yaml_and_a_cache(
    dataset: Path, folder: Path, local_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    held = yaml.safe_load(CONFIG.read_text())
    held["model"]["backbone"] = local_model
    held["model"]["backbone_weights"] = "DEFAULT"
    Path("mine.yaml").write_text(yaml.safe_dump(held))
    videos = [f"--data.root={dataset}", "--data.batch_size=6", "--data.num_workers=0", *CLIPS]
    main(["extract", "cache", "--config=mine.yaml", *videos])
    cache = FeatureCache("cache")
    assert cache.spec.feature_shape == (24, 2, 4, 4)
    assert cache.spec.backbone == build_backbone(local_model).to_config()
    features = ["--data=taghead.features.FeatureDataModule", "--data.root=cache", *SMALL]
    options = ["--model.head.channels=16", "--model.head.encoder_heads=2"]
    options += ["--trainer.default_root_dir=run", "--trainer.logger=false"]
    options += ["--trainer.callbacks=taghead.training.LastCheckpoint"]
    main(["fit", *features, *options, f"--model.backbone={local_model}"])
    run = Path("run/checkpoints/last.ckpt")
    trained = load_model(run)
    # the whole model, with the weights of the folder, and without its files
    Path("videomae").rename("elsewhere")
    again = load_model(run)
    state = build_backbone("hf:elsewhere", "DEFAULT").state_dict()
    for name, value in again.backbone.state_dict().items():
        assert torch.equal(value, state[name])
        assert torch.equal(value, trained.backbone.state_dict()[name])
    assert cache.backbone().to_config() == cache.spec.backbone
    main(["convert", str(run), "shared"])
    assert "A hf:videomae backbone" in Path("shared/README.md").read_text()
    assert json.loads(Path("shared/config.json").read_text())["backbone"] == cache.spec.backbone
    video = next(dataset.rglob("*.mp4"))
    capsys.readouterr()
    main(["predict", str(video), "--model=shared"])
    assert video.name in capsys.readouterr().out


def test_a_cache_of_another_backbone_is_refused(dataset: Path, local_model: str) -> None:
    videos = [f"--data.root={dataset}", "--data.batch_size=6", "--data.num_workers=0", *CLIPS]
    chosen = ["--data=taghead.data.SynthGym", f"--backbone={local_model}"]
    main(["extract", "cache", *chosen, "--backbone_weights=DEFAULT", *videos])
    features = ["--data=taghead.features.FeatureDataModule", "--data.root=cache", *SMALL]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *features, "--model.backbone=image:test_resnet"])
    error = str(stopped.value)
    assert 'backbone must be hf:{"model_type":"videomae"' in error
    assert "(got 'image:test_resnet')" in error


def test_costs_of_several(local_model: str) -> None:
    sizes = ["--num_frames=4", "--size=64", "--runs=1", "--device=cpu", "--num_classes=5"]
    head = ["--head.channels=16", "--head.encoder_heads=2"]
    names = ["image:test_vit", "efficientnet_lite0", local_model]
    main(["bench", "model", *names, *sizes, *head, "--output=costs.csv"])
    table = pd.read_csv("costs.csv")
    assert set(table["model"]) == set(names)
    assert (table.loc[table["part"] == "backbone", "GFLOP"] > 0).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("image:test_resnt", "did you mean image:test_resnet"),
        ("efficientnet_lite", "did you mean efficientnet_lite0?"),
        ("img:resnet18", "image:<timm's name>, hf:<model or folder>, or the class path"),
        ("hf:./nowhere", "./nowhere: no such folder, and no name of a model on the hub"),
    ],
)
def test_a_misspelt_name(dataset: Path, name: str, message: str) -> None:
    args = [f"--config={CONFIG}", f"--data.root={dataset}", *SMALL, *CLIPS]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *args, f"--model.backbone={name}"])
    error = str(stopped.value)
    assert message in error
    assert len(error.strip().splitlines()) <= 3
