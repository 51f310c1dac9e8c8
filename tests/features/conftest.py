from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from taghead.backbones import Backbone, build_backbone
from taghead.data import ClipDataset, SynthGym
from taghead.features import FeatureCache
from taghead.features.extract import write_features
from taghead.video import Preprocessing

SMALL = Preprocessing(num_frames=8, resize=36, crop=32, flip=0.5)


@pytest.fixture(scope="session")
def data_of(dataset: Path) -> Callable[..., SynthGym]:
    """The generated clips as a data module, with options."""

    def make(**options: object) -> SynthGym:
        defaults = {
            "root": str(dataset),
            "num_train": 36,
            "num_val": 18,
            "num_test": 18,
            "preprocessing": SMALL,
            "batch_size": 9,
            "num_workers": 0,
        }
        return SynthGym(**{**defaults, **options})  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def backbone(data_of: Callable[..., SynthGym]) -> Backbone:
    """A backbone whose batch norms have seen the clips, so that its features tell them apart."""
    torch.manual_seed(1)
    network = build_backbone("r2plus1d_tiny")
    data = data_of()
    clips = ClipDataset(data.listed["train"], data.preprocessing)
    batch = torch.stack([clips[i][0] for i in range(len(clips))])
    with torch.no_grad():
        for _ in range(25):
            network(batch)
    return network.eval()


@pytest.fixture(scope="session")
def stored(
    backbone: Backbone, data_of: Callable[..., SynthGym], tmp_path_factory: pytest.TempPathFactory
) -> FeatureCache:
    """Three views of each training clip, in one file a split."""
    root = tmp_path_factory.mktemp("features") / "cache"
    return write_features(root, backbone, data_of(), num_views=3)
