import sys
from pathlib import Path

import pytest
import yaml

from taghead.backbones import build_backbone
from taghead.cli import main
from taghead.data import SynthGym
from taghead.extraction import write_features
from taghead.video import Preprocessing

EXPERIMENTS = sorted((Path(__file__).parents[1] / "experiments").rglob("*.yaml"))
SIZES = {"num_train": 36, "num_val": 18, "num_test": 18}


@pytest.fixture(scope="module")
def features(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips' features."""
    root = tmp_path_factory.mktemp("features")
    preprocessing = Preprocessing(num_frames=4, resize=32, crop=32)
    data = SynthGym(str(dataset), preprocessing=preprocessing, num_workers=0, **SIZES)
    write_features(root, build_backbone("r2plus1d_tiny"), data)
    return root


def data_options(config: Path, dataset: Path, features: Path) -> dict[str, object]:
    """Where an experiment finds its data here."""
    if yaml.safe_load(config.read_text())["data"]["class_path"].endswith("FeatureDataModule"):
        return {"root": features}
    return {"root": dataset, **SIZES}


@pytest.mark.parametrize("config", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_takes_a_step(
    config: Path, dataset: Path, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["taghead"])
    main(
        [
            "fit",
            f"--config={config}",
            "--trainer.fast_dev_run=1",
            "--trainer.accelerator=cpu",
            "--data.num_workers=0",
            "--data.batch_size=2",
            *(f"--data.{k}={v}" for k, v in data_options(config, dataset, features).items()),
        ]
    )
