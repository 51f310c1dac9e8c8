"""The GraphGym bridge in `experiments/graphgym`."""

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from generated_features import SHAPE, write_generated_features
from needed import needs

from taghead.features import FeatureCache, TokenGraphs

pytestmark = needs("yacs")
FOLDER = Path(__file__).parents[2] / "experiments" / "graphgym"


@pytest.fixture(scope="module")
def bridge() -> ModuleType:
    spec = importlib.util.spec_from_file_location("graphgym_bridge", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    return write_generated_features(tmp_path_factory.mktemp("graphgym") / "cache", noise=2.0)


def test_the_config_trains_gps_on_the_tokens(
    bridge: ModuleType, features: FeatureCache, tmp_path: Path
) -> None:
    options = ["dataset.dir", str(features.root), "out_dir", str(tmp_path), "optim.max_epoch", "2"]
    args = SimpleNamespace(cfg_file=str(FOLDER / "gps.yml"), opts=options)
    found = bridge.main(args)
    assert bridge.cfg.share.dim_in == SHAPE[0]
    assert bridge.cfg.share.dim_out == 4
    assert found.keys() == {"train", "val", "test"}
    assert found["train"] > 0.5  # by chance 0.25
    assert found["test"] > 0.5


def test_its_dataset_holds_all_splits(bridge: ModuleType, features: FeatureCache) -> None:
    bridge.register_all()
    bridge.cfg.dataset.relations = ["intra_frame"]
    dataset = bridge.load("taghead", "tokens", str(features.root))
    assert len(dataset) == 96 + 64 + 64
    index = dataset.data["val_graph_index"]
    val = TokenGraphs(features, "val", ["intra_frame"])
    assert [graph.clip for graph in dataset[index]] == [graph.clip for graph in val]
    assert torch.equal(dataset.data.y[index], val.labels)
    assert bridge.load("PyG", "Cora", "") is None
