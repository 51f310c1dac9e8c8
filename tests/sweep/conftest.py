import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

BASE: dict[str, Any] = {
    "seed_everything": 3,
    "trainer": {
        "max_epochs": 30,
        "accelerator": "cpu",
        "log_every_n_steps": 1,
        "callbacks": [{"class_path": "taghead.training.TestReport"}],
    },
    "model": {
        "backbone": "r2plus1d_tiny",
        "learning_rate": 0.004,
        "head": {
            "class_path": "taghead.TAGHead",
            "init_args": {
                "channels": 16,
                "encoder_layers": 1,
                "encoder_heads": 2,
                "encoder_channels": 16,
                "conv": "torch_geometric.nn.SAGEConv",
            },
        },
    },
    "data": {
        "class_path": "taghead.features.FeatureDataModule",
        "init_args": {"root": "cache", "batch_size": 9},
    },
}
FACTORS: dict[str, Any] = {
    "operator": {
        "SAGEConv": {"model.head.conv": "torch_geometric.nn.SAGEConv"},
        "GCNConv": {
            "model.head.conv": {
                "class_path": "torch_geometric.nn.GCNConv",
                "init_args": {"add_self_loops": False},
            }
        },
    },
    "relations": {
        "none": {"set": {"model.head.mode": "none"}, "without": ["operator"]},
        "both": {"model.head.relations": ["intra_frame", "time_aligned"]},
    },
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["taghead"])
    return tmp_path


@pytest.fixture(scope="session")
def cache_root(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated clips' features, of a backbone whose batch norms have seen the clips."""
    import torch

    from taghead.backbones import build_backbone
    from taghead.data import ClipDataset, SynthGym
    from taghead.features.extract import write_features
    from taghead.video import Preprocessing

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("features") / "cache"
    preprocessing = Preprocessing(num_frames=8, resize=36, crop=32)
    sizes = {"num_train": 36, "num_val": 18, "num_test": 18}
    data = SynthGym(str(dataset), preprocessing=preprocessing, num_workers=0, **sizes)
    backbone = build_backbone("r2plus1d_tiny")
    clips = ClipDataset(data.listed["train"], preprocessing)
    batch = torch.stack([clips[i][0] for i in range(len(clips))])
    with torch.no_grad():
        for _ in range(25):
            backbone(batch)
    write_features(root, backbone.eval(), data, num_views=2)
    return root


@pytest.fixture
def write(folder: Path) -> Callable[..., str]:
    """Writes a sweep file, with other keys than the usual ones where they are given."""

    def written(file: str = "sweep.yaml", /, **keys: Any) -> str:
        (folder / "base.yaml").write_text(yaml.safe_dump(BASE))
        content = {"name": "tiny", "base": "base.yaml", "seeds": [0, 1], "factors": FACTORS, **keys}
        (folder / file).write_text(yaml.safe_dump(content, sort_keys=False))
        return file

    return written
