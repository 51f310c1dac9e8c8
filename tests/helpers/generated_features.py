"""A feature cache of generated feature maps, whose classes can be told apart and are not easy."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from taghead.backbones import build_backbone
from taghead.data.annotations import Clip
from taghead.features import FeatureCache
from taghead.features.feature_spec import FeatureSpec, weights_digest
from taghead.features.writer import CacheWriter
from taghead.video import Preprocessing

CLASSES = ["rise_then_fall", "fall_then_rise", "rise", "fall"]
SHAPE = (128, 2, 4, 4)  # of r2plus1d_tiny on 8 frames of 32 pixels
ORDERS = [(0, 1), (1, 0), (0, 0), (1, 1)]  # what the two frames of each class show


def feature_maps(labels: Tensor, noise: float, seed: int) -> Tensor:
    """Each frame shows one of two patterns, in noise: `[M, 1, C, T, H, W]`."""
    random = torch.Generator().manual_seed(seed)
    patterns = torch.randn(2, SHAPE[0], generator=torch.Generator().manual_seed(0))
    frames = patterns[torch.tensor(ORDERS)[labels]]  # [M, T, C]
    signal = frames.transpose(1, 2)[..., None, None]
    return (signal + noise * torch.randn(len(labels), *SHAPE, generator=random)).unsqueeze(1)


def write_generated_features(
    root: Path, num_train: int = 96, num_test: int = 64, noise: float = 6.0
) -> FeatureCache:
    """Writes the cache; the clips' paths lead to nothing."""
    torch.manual_seed(0)
    backbone = build_backbone("r2plus1d_tiny").eval()
    sizes = {"train": num_train, "val": num_test, "test": num_test}
    labels = {split: torch.arange(size) % len(CLASSES) for split, size in sizes.items()}
    spec = FeatureSpec(
        backbone="r2plus1d_tiny",
        weights_sha256=weights_digest(backbone.state_dict()),
        preprocessing=Preprocessing(8, 36, 32).to_dict(),
        reader="pyav",
        precision="32-true",
        dtype="float16",
        num_views=1,
        seed=0,
        feature_shape=SHAPE,
        class_names=CLASSES,
        clips={
            split: [
                Clip(root / f"{split}-{i}.mp4", int(label), CLASSES[label])
                for i, label in enumerate(of_split)
            ]
            for split, of_split in labels.items()  # type: ignore[misc]
        },
    )
    with CacheWriter(root, spec, 10**8) as writer:
        writer.begin(backbone)
        for i, shard in enumerate(writer.missing):
            maps = feature_maps(labels[shard.split][shard.start : shard.stop], noise, i + 1)
            writer.add(shard, maps.half().contiguous(), {})
        writer.finish()
    return FeatureCache(root)
